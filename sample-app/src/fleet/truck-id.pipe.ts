import { Injectable, type PipeTransform } from '@nestjs/common'
import { RpcException } from '@nestjs/microservices'

/** A level of a topic may be 65,535 bytes of anything; the id of a truck may not. */
@Injectable()
export class TruckIdPipe implements PipeTransform<string, string> {
  transform(truckId: string): string {
    if (/^[\w-]{1,64}$/.test(truckId)) return truckId
    throw new RpcException('the id of a truck is 1 to 64 letters, digits, "_" or "-"')
  }
}
