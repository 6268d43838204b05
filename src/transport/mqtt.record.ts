import { MqttRecord } from '@nestjs/microservices'
import type { PublishProperties } from '../client/connection/link.js'
import { parseOptions, recordSchema } from '../options/schema.js'

/** What `MqttRecordBuilder` puts beside the data. */
interface RecordOptions {
  readonly qos?: 0 | 1 | 2
  readonly retain?: boolean
  readonly properties?: PublishProperties
}

/** Data, and the options that came with it in a record. @throws MqttError `INVALID_OPTION` */
export function readRecord(
  door: string,
  value: unknown,
): { readonly data: unknown; readonly options: RecordOptions } {
  if (!(value instanceof MqttRecord)) return { data: value, options: {} }
  parseOptions(door, recordSchema, value.options)
  return { data: value.data, options: value.options ?? {} }
}
