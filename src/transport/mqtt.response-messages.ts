import { MqttRecord } from '@nestjs/microservices'
import type { PublishPacket, PublishProperties } from '../client/connection/link.js'
import { STATUS } from '../client/requests/responses.js'
import { describeFailure, MqttError, readSafely } from '../core/errors.js'
import type { OutboundMessage } from '../core/outbound/outbound-message.js'
import type { ReplyTarget } from '../core/requests/reply-target.js'
import { type Codec, jsonCodec } from '../options/codec.js'
import { parseOptions, recordSchema } from '../options/schema.js'

/** Options of an `MqttRecord`. */
interface RecordOptions {
  readonly qos?: 0 | 1 | 2
  readonly retain?: boolean
  readonly properties?: PublishProperties
}

/** Returns the data and the options of a record. @throws MqttError `INVALID_OPTION` */
export function readRecord(
  door: string,
  value: unknown,
): { readonly data: unknown; readonly options: RecordOptions } {
  if (!(value instanceof MqttRecord)) return { data: value, options: {} }
  parseOptions(door, recordSchema, value.options)
  return { data: value.data, options: value.options ?? {} }
}

export type Mqtt5Target = Extract<ReplyTarget, { kind: 'mqtt5' }>

/** A request and the target of its response. */
export interface Exchange {
  readonly request: PublishPacket
  readonly target: ReplyTarget
  readonly codec: Codec
}

/** Creates the only response to a request. */
export function onlyMessage(exchange: Exchange, value: unknown): OutboundMessage {
  const { target } = exchange
  return target.kind === 'nest'
    ? nestMessage(exchange, { response: value, isDisposed: true, id: target.id })
    : mqtt5Message(exchange, target, value)
}

/** Creates the error response to a request. */
export function errorMessage(exchange: Exchange, error: unknown): OutboundMessage {
  const { target } = exchange
  const err = readableError(error)
  if (target.kind === 'nest') return nestMessage(exchange, { err, isDisposed: true, id: target.id })
  return {
    ...base(exchange),
    payload: jsonCodec.encode(err),
    properties: properties(target, { contentType: jsonCodec.contentType, status: 'error' }),
  }
}

/** Creates one response for an MQTT 5 requester. @throws MqttError `INVALID_OPTION` */
export function mqtt5Message(
  exchange: Exchange,
  target: Mqtt5Target,
  value: unknown,
  extra: { readonly status?: string; readonly cancelTopic?: string } = {},
): OutboundMessage {
  const { data, options } = readRecord('record of a handler', value)
  const { contentType } = exchange.codec
  const own = options.properties
  return {
    ...base(exchange),
    ...(options.qos === undefined ? {} : { qos: options.qos }),
    ...(options.retain === undefined ? {} : { retain: options.retain }),
    payload: Buffer.isBuffer(data) ? data : exchange.codec.encode(data),
    properties: properties(target, { contentType, ...extra }, own),
  }
}

/** Creates the message that ends a stream. */
export function endMessage(exchange: Exchange, target: Mqtt5Target): OutboundMessage {
  return { ...base(exchange), payload: Buffer.alloc(0), properties: properties(target, { status: 'end' }) }
}

function base({ request, target }: Exchange) {
  return { topic: target.topic, qos: request.qos, retain: false }
}

/** Creates one reply in Nest's envelope. @throws MqttError `INVALID_OPTION` */
export function nestMessage(exchange: Exchange, reply: object): OutboundMessage {
  if (!('response' in reply)) return { ...base(exchange), payload: jsonCodec.encode(reply) }
  const { data, options } = readRecord('record of a handler', reply.response)
  return {
    ...base(exchange),
    ...(options.qos === undefined ? {} : { qos: options.qos }),
    payload: jsonCodec.encode({ ...reply, response: data }),
    ...(options.properties === undefined ? {} : { properties: options.properties }),
  }
}

interface Extra {
  readonly contentType?: string | undefined
  readonly status?: string
  readonly cancelTopic?: string
}

function properties(
  { correlationData }: Mqtt5Target,
  { contentType, status, cancelTopic }: Extra,
  own: PublishProperties = {},
): PublishProperties {
  const userProperties = { ...own.userProperties, ...(status === undefined ? {} : { [STATUS]: status }) }
  return {
    ...(contentType === undefined ? {} : { contentType }),
    ...own,
    ...(cancelTopic === undefined ? {} : { responseTopic: cancelTopic }),
    ...(correlationData === undefined ? {} : { correlationData }),
    ...(Object.keys(userProperties).length === 0 ? {} : { userProperties }),
  }
}

function isJson(value: unknown): boolean {
  try {
    return JSON.stringify(value) !== undefined
  } catch {
    return false
  }
}

/** Returns what a response may contain of an error, after Nest's exception filters have run. */
function readableError(error: unknown): unknown {
  return readSafely(
    () => {
      if (!(error instanceof Error) && isJson(error)) return error
      const hasCode = error instanceof Error && !(error instanceof MqttError) && 'code' in error
      const code = hasCode ? error.code : undefined
      return {
        status: 'error',
        message:
          error instanceof Error && typeof error.message === 'string'
            ? error.message
            : describeFailure(error),
        ...(typeof code === 'string' || typeof code === 'number' ? { code } : {}),
      }
    },
    { status: 'error', message: describeFailure(error) },
  )
}
