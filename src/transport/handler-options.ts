import * as v from 'valibot'
import type { CodecOption } from '../codec.js'
import { codecSchema, parseOptions, sharedGroupSchema, strictObject } from '../schema.js'

/** Options of one handler, as the second argument of `@EventPattern` or `@MessagePattern`. */
export interface HandlerOptions {
  /**
   * Highest QoS in which the broker delivers to this handler. The default leaves the choice to the publisher,
   * up to acknowledged delivery. QoS 2 is acknowledged when it is received, not when the handler ended.
   * @default 1
   */
  readonly qos?: 0 | 1 | 2
  /** How the payload is decoded. @default the codec of the connection */
  readonly codec?: CodecOption
  /** ShareName: the broker gives each message to one of the group's members (MQTT 5, 4.8.2). */
  readonly sharedGroup?: string
  /** No Local: what this connection publishes does not come back. MQTT 5 only (3.8.3.1). @default false */
  readonly noLocal?: boolean
  /**
   * Retained messages at subscribing: 0 send them, 1 send them if the subscription is new, 2 do not.
   * MQTT 5 only (3.8.3.1). @default 0
   */
  readonly retainHandling?: 0 | 1 | 2
}

const flag = 'true or false'
const level = 'one of 0, 1, 2'

const entries = {
  qos: v.optional(v.picklist([0, 1, 2], level), 1),
  codec: v.optional(codecSchema),
  sharedGroup: v.optional(sharedGroupSchema),
  noLocal: v.optional(v.boolean(flag), false),
  retainHandling: v.optional(v.picklist([0, 1, 2], level), 0),
}

const strict = strictObject(entries, 'an object with handler options')
/** Extras of a decorator may hold keys of others. */
const loose = v.object(entries, 'an object with handler options')

export type ResolvedHandlerOptions = v.InferOutput<typeof loose>

/**
 * Options for a handler: `@EventPattern('devices/+id', handle({ qos: 0 }))`. Checked where it is written.
 * @throws MqttError `INVALID_OPTION`
 */
export function handle(options: HandlerOptions): HandlerOptions {
  parseOptions('handle()', strict, options)
  return options
}

/** @throws MqttError `INVALID_OPTION` */
export function resolveHandlerOptions(pattern: string, extras: unknown): ResolvedHandlerOptions {
  return parseOptions(`handler of "${pattern}"`, loose, extras ?? {})
}
