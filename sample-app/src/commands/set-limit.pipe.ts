import { Injectable, type PipeTransform } from '@nestjs/common'
import { RpcException } from '@nestjs/microservices'

export interface SetLimit {
  readonly limitCelsius: number
}

@Injectable()
export class SetLimitPipe implements PipeTransform<unknown, SetLimit> {
  transform(payload: unknown): SetLimit {
    if (typeof payload === 'object' && payload !== null && 'limitCelsius' in payload) {
      const { limitCelsius } = payload
      if (typeof limitCelsius === 'number' && limitCelsius >= -60 && limitCelsius <= 40)
        return { limitCelsius }
    }
    throw new RpcException('"limitCelsius" must be a number from -60 to 40')
  }
}
