import { Injectable, type PipeTransform } from '@nestjs/common'
import { RpcException } from '@nestjs/microservices'
import type { Reading } from '../fleet/truck.js'

/** What came over the wire, checked. A truck without a clock leaves `at` out. */
@Injectable()
export class ReadingPipe implements PipeTransform<unknown, Reading> {
  transform(payload: unknown): Reading {
    if (typeof payload !== 'object' || payload === null) throw new RpcException('a reading is an object')
    const temperatureCelsius = 'temperatureCelsius' in payload ? payload.temperatureCelsius : undefined
    if (typeof temperatureCelsius !== 'number') throw new RpcException('"temperatureCelsius" is a number')
    const at = 'at' in payload ? payload.at : new Date().toISOString()
    if (typeof at !== 'string' || Number.isNaN(Date.parse(at)))
      throw new RpcException('"at" is a date and time')
    return { temperatureCelsius, at: new Date(at).toISOString() }
  }
}
