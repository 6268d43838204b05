import { randomFillSync } from 'node:crypto'
import {
  describeCause,
  describeFailure,
  isError,
  isMqttError,
  MqttError,
  publicErrorOf,
  readSafely,
} from '../../core/errors.js'
import type { OutboundMessage } from '../../core/outbound/outbound-message.js'
import {
  LEASE,
  type RequestProtocol,
  type ResponseTarget,
  STREAM,
} from '../../core/requests/request-rules.js'
import type { SubscriptionOptions } from '../../core/subscriptions/subscription-rules.js'
import { type Codec, decodePacket, jsonCodec, type PayloadCheck, validatedNow } from '../../options/codec.js'
import type { PublishPacket, PublishProperties } from '../connection/link.js'
import type { ValueSource } from './response-queue.js'

const MS = 1_000

export interface OutgoingRequest extends OutboundMessage {
  /** What the payload is made of, for the envelope. */
  readonly data: unknown
  /** What the envelope has for a pattern. @default the topic */
  readonly pattern?: unknown
  /** Metadata that the envelope carries in addition to the data; on MQTT 5 it is in the User Properties. */
  readonly metadata?: Readonly<Record<string, string>> | undefined
}

export interface RequestPlan extends RequestTerms {
  readonly protocol: RequestProtocol
  readonly codec: Codec
}

export interface RequestTerms {
  readonly timeoutMs: number
  /** Several responses may come. */
  readonly isStream: boolean
  readonly signal: AbortSignal | undefined
}

/** User Property with the kind of a response. Without it, the response is the only one. */
export const STATUS = 'status'
/** User Property of the end of a stream: how many values were sent. Other responders may not set it. */
const VALUES = 'values'

export type Response =
  | { readonly kind: 'value'; readonly value: unknown; readonly isOnly: boolean }
  | { readonly kind: 'end'; readonly sent: number }
  | { readonly kind: 'cancel' }
  | { readonly kind: 'renew' }
  | { readonly kind: 'error'; readonly error: MqttError }

/** How a topic of responses is subscribed. A retained response belongs to another request. */
export function responseSubscription(qos: 0 | 1): SubscriptionOptions {
  return { qos, noLocal: false, retainHandling: 2 }
}

const BYTES = 16
const POOL_BYTES = 4_096

/** Random Correlation Data (MQTT 5, 4.10), so that other clients cannot send responses in place of the responder. */
export class Correlation {
  private pool = Buffer.alloc(0)
  private at = 0

  next(): Buffer {
    if (this.at + BYTES > this.pool.length) {
      this.pool = randomFillSync(Buffer.alloc(POOL_BYTES))
      this.at = 0
    }
    this.at += BYTES
    return this.pool.subarray(this.at - BYTES, this.at)
  }
}

/** Creates a request with a Response Topic and Correlation Data (MQTT 5, 4.10). */
export function mqtt5Request(
  request: OutgoingRequest,
  { timeoutMs, isStream }: RequestPlan,
  responses: { readonly responseTopic: string; readonly correlationData: Buffer },
  streamLeaseMs: number,
): OutboundMessage {
  const { topic, payload, qos, retain } = request
  // A request that arrives later would be handled for nobody.
  const messageExpiryInterval = Math.ceil(timeoutMs / MS)
  if (!isStream && request.properties === undefined) {
    const { responseTopic, correlationData } = responses
    // Most requests: spreading costs more than encoding them.
    const properties = { messageExpiryInterval, responseTopic, correlationData }
    return { topic, payload, qos, retain, properties }
  }
  const userProperties = {
    ...request.properties?.userProperties,
    ...(isStream ? { [STREAM]: 'true', [LEASE]: String(Math.ceil(streamLeaseMs / MS)) } : {}),
  }
  const properties = {
    messageExpiryInterval,
    ...request.properties,
    ...(Object.keys(userProperties).length === 0 ? {} : { userProperties }),
    ...responses,
  }
  return { topic, payload, qos, retain, properties }
}

/** Reads a message on the private response topic (MQTT 5, 4.10). */
export function readResponse(packet: PublishPacket, codec: Codec): Response {
  const { [STATUS]: status, [VALUES]: sent } = packet.properties?.userProperties ?? {}
  if (status === 'end') return { kind: status, sent: Number(sent) }
  if (status === 'cancel' || status === 'renew') return { kind: status }
  try {
    const value = decodePacket(codec, packet)
    if (status === 'error') return { kind: 'error', error: responderError(value) }
    return { kind: 'value', value, isOnly: status !== 'next' }
  } catch (error) {
    const failure =
      error instanceof MqttError ? error : new MqttError('PAYLOAD_NOT_DECODABLE', describeCause(error))
    return { kind: 'error', error: failure }
  }
}

/** The error that a responder sent: its message, and all of it as `response`. */
export function responderError(value: unknown): MqttError {
  return new MqttError('REQUEST_FAILED', messageOf(value), { response: value })
}

function messageOf(value: unknown): string {
  if (typeof value === 'string') return value
  if (typeof value === 'object' && value !== null && 'message' in value) return String(value.message)
  return 'the responder failed'
}

/** A request and the target of its responses. */
export interface Exchange {
  readonly request: PublishPacket
  readonly target: ResponseTarget
  readonly codec: Codec
  /** Validates the responses. */
  readonly check?: PayloadCheck | undefined
}

type Mqtt5Target = Extract<ResponseTarget, { kind: 'mqtt5' }>

/** What a handler responds with, and how it is published. */
export interface ResponseValue {
  readonly data: unknown
  readonly options: {
    readonly qos?: 0 | 1 | 2
    readonly retain?: boolean
    readonly properties?: PublishProperties
  }
}

/** How the results of handlers are read. */
export interface ResultReader {
  /** A result that emits several values, other than an async iterable. */
  sourceOf(result: unknown): ValueSource | undefined
  /** One value, with the options for its response. @throws MqttError `INVALID_OPTION` */
  valueOf(value: unknown): ResponseValue
  /** What the requester receives of an error. */
  errorOf(error: unknown): unknown
}

export const PLAIN_RESULTS: ResultReader = {
  sourceOf: () => undefined,
  valueOf: data => ({ data, options: {} }),
  errorOf: error => publicErrorOf(error) ?? error,
}

/** @throws MqttError `PAYLOAD_INVALID`; `INVALID_OPTION` for a schema that validates asynchronously */
function assertValid(check: PayloadCheck, { request }: Exchange, data: unknown): void {
  validatedNow(check, `the response on "${request.topic}"`, data, 'use a schema that does not')
}

/** Creates the only response to a request. */
export function onlyMessage(exchange: Exchange, value: ResponseValue): OutboundMessage {
  const { target } = exchange
  return target.kind === 'nest'
    ? nestMessage(exchange, { isDisposed: true, id: target.id }, value)
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

/** Creates one response for an MQTT 5 requester. @param extra on the responses of a stream */
export function mqtt5Message(
  exchange: Exchange,
  target: Mqtt5Target,
  { data, options }: ResponseValue,
  extra: { readonly status?: string; readonly cancelTopic?: string } = {},
): OutboundMessage {
  const { contentType } = exchange.codec
  if (exchange.check !== undefined) assertValid(exchange.check, exchange, data)
  const payload = Buffer.isBuffer(data) ? data : exchange.codec.encode(data)
  const isPlain = options.properties === undefined && extra.status === undefined
  // No spreading, which costs more than encoding the response.
  return {
    topic: target.topic,
    payload,
    qos: options.qos ?? exchange.request.qos,
    retain: options.retain ?? false,
    properties: isPlain
      ? plainProperties(target, contentType)
      : properties(target, { contentType, ...extra }, options.properties),
  }
}

/** Creates the message that ends a stream of so many values. At QoS 0, the requester may have received fewer. */
export function endMessage(exchange: Exchange, target: Mqtt5Target, values: number): OutboundMessage {
  const userProperties = { [STATUS]: 'end', [VALUES]: String(values) }
  const properties = { ...plainProperties(target, undefined), userProperties }
  return { ...base(exchange), payload: Buffer.alloc(0), properties }
}

/** Creates one reply in Nest's envelope. */
export function nestMessage(exchange: Exchange, reply: object, value?: ResponseValue): OutboundMessage {
  if (value === undefined) return { ...base(exchange), payload: jsonCodec.encode(reply) }
  const { data, options } = value
  if (exchange.check !== undefined) assertValid(exchange.check, exchange, data)
  return {
    ...base(exchange),
    ...(options.qos === undefined ? {} : { qos: options.qos }),
    payload: jsonCodec.encode({ response: data, ...reply }),
    ...(options.properties === undefined ? {} : { properties: options.properties }),
  }
}

function base({ request, target }: Exchange) {
  return { topic: target.topic, qos: request.qos, retain: false }
}

interface Extra {
  readonly contentType?: string | undefined
  readonly status?: string
  readonly cancelTopic?: string
}

/** Properties of most responses. */
function plainProperties(
  { correlationData }: Mqtt5Target,
  contentType: string | undefined,
): PublishProperties {
  if (contentType !== undefined && correlationData !== undefined) return { contentType, correlationData }
  return contentType === undefined ? { ...(correlationData && { correlationData }) } : { contentType }
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

/** Returns what a response may contain of an error. */
function readableError(error: unknown): unknown {
  return readSafely(
    () => {
      if (!isError(error) && isJson(error)) return error
      if (isMqttError(error, 'PAYLOAD_INVALID')) return publicErrorOf(error)
      const hasCode = isError(error) && !(error instanceof MqttError) && 'code' in error
      const code = hasCode ? error.code : undefined
      return {
        status: 'error',
        message: isError(error) && typeof error.message === 'string' ? error.message : describeFailure(error),
        ...(typeof code === 'string' || typeof code === 'number' ? { code } : {}),
      }
    },
    { status: 'error', message: describeFailure(error) },
  )
}
