import { Injectable, type PipeTransform } from '@nestjs/common'
import { RpcException } from '@nestjs/microservices'

/** A topic level can be any string of up to 65,535 bytes, so the id is validated. */
@Injectable()
export class TruckIdPipe implements PipeTransform<string, string> {
  transform(truckId: string): string {
    if (/^[\w-]{1,64}$/.test(truckId)) return truckId
    throw new RpcException('the truck id must have 1 to 64 letters, digits, "_" or "-"')
  }
}
