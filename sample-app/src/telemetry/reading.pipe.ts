import { Injectable, type PipeTransform } from '@nestjs/common'
import { RpcException } from '@nestjs/microservices'
import type { Reading } from '../fleet/truck.js'

/** Validates a reading. `at` is optional, for trucks without a clock. */
@Injectable()
export class ReadingPipe implements PipeTransform<unknown, Reading> {
  transform(payload: unknown): Reading {
    if (typeof payload !== 'object' || payload === null)
      throw new RpcException('the reading must be an object')
    const temperatureCelsius = 'temperatureCelsius' in payload ? payload.temperatureCelsius : undefined
    if (typeof temperatureCelsius !== 'number')
      throw new RpcException('"temperatureCelsius" must be a number')
    const at = 'at' in payload ? payload.at : new Date().toISOString()
    if (typeof at !== 'string' || Number.isNaN(Date.parse(at)))
      throw new RpcException('"at" must be a date and time')
    return { temperatureCelsius, at: new Date(at).toISOString() }
  }
}
