import { NO_MATCHING_SUBSCRIBERS } from '../connection/reconnect-rules.js'
import { MqttError } from '../errors.js'
import type { PublishOutcome } from '../outbound/publish-outcome.js'
import type { PublishPacket } from '../protocol/packets.js'
import { isTopicName } from '../topic/topic-filter.js'

/** Format of a request: MQTT 5 properties, or the envelope of Nest's built-in transport. */
export type RequestProtocol = 'mqtt5' | 'nest'

/** Where the response to a request is sent. */
export type ResponseTarget =
  | {
      readonly kind: 'mqtt5'
      readonly topic: string
      readonly correlationData: Buffer | undefined
      /** Whether the requester accepts several responses. */
      readonly isStream?: boolean
    }
  /** The envelope of Nest's built-in transport, for MQTT 3.1.1. */
  | { readonly kind: 'nest'; readonly topic: string; readonly id: string }

/** A message to a handler that responds. */
export interface IncomingRequest {
  readonly data: unknown
  /** Undefined for a message that expects no response. */
  readonly target: ResponseTarget | undefined
  /** Metadata of the envelope. */
  readonly metadata?: unknown
}

/**
 * Reads what a handler of requests receives, and where its response is sent. A request has a Response Topic, or an
 * envelope with exactly the keys of the built-in transport. Everything else is a plain message.
 */
export function readRequest(packet: PublishPacket, decoded: unknown): IncomingRequest {
  if (packet.properties?.responseTopic !== undefined) return { data: decoded, target: responseTarget(packet) }
  if (!isEnvelope(decoded)) return { data: decoded, target: undefined }
  const topic = `${packet.topic}/reply`
  const { data, id, metadata } = decoded
  const target: ResponseTarget | undefined = isSafe(topic) ? { kind: 'nest', topic, id } : undefined
  return metadata === undefined ? { data, target } : { data, target, metadata }
}

/**
 * Reads an event from the built-in `emit()`: `{ pattern, data }` with the pattern of the topic, and optional `metadata`.
 * Everything else is a plain message.
 */
export function unwrapEvent(
  topic: string,
  decoded: unknown,
  routeOf: (pattern: unknown) => unknown,
): { readonly data: unknown; readonly metadata?: unknown } {
  if (typeof decoded !== 'object' || decoded === null || Array.isArray(decoded) || !('pattern' in decoded))
    return { data: decoded }
  const { pattern, data, metadata }: { pattern: unknown; data?: unknown; metadata?: unknown } = decoded
  const keys = 1 + ('data' in decoded ? 1 : 0) + ('metadata' in decoded ? 1 : 0)
  const isEvent = hasKeys(decoded, keys) && (pattern === topic || routeOf(pattern) === topic)
  if (!isEvent) return { data: decoded }
  return metadata === undefined ? { data } : { data, metadata }
}

/** Returns the response target from the properties of a request (MQTT 5, 4.10). */
export function responseTarget(packet: PublishPacket): ResponseTarget | undefined {
  const { responseTopic, correlationData, userProperties } = packet.properties ?? {}
  if (responseTopic === undefined || !isSafe(responseTopic)) return undefined
  const target = { kind: 'mqtt5', topic: responseTopic, correlationData } as const
  return userProperties?.[STREAM] === 'true' ? { ...target, isStream: true } : target
}

/** Whether responses may be sent to a topic: it must be a valid Topic Name, and not a topic of the broker (`$…`). */
export function isSafe(responseTopic: string): boolean {
  return isTopicName(responseTopic) && !responseTopic.startsWith('$')
}

/** User Property of a request that accepts several responses. */
export const STREAM = 'stream'

/** User Property of such a request: number of seconds within which the requester renews the stream. */
export const LEASE = 'lease'

const MS = 1_000
const MAX_LEASE_SECONDS = 3_600

/** How long a responder keeps a source of responses open without a sign of the requester. Undefined: without a limit. */
export interface Lease {
  /** Until the first response. */
  readonly firstLeaseMs: number | undefined
  /** After the first response. */
  readonly leaseMs: number | undefined
}

/**
 * Reads the lease of a request. A request for one response waits for its Message Expiry Interval. A request for a stream
 * names the interval of its renewals, and waits for the first response as long as a request for one response. The
 * envelope of Nest has no lease.
 */
export function leaseOf({ properties }: Pick<PublishPacket, 'properties'>, target: ResponseTarget): Lease {
  if (target.kind === 'nest') return { firstLeaseMs: undefined, leaseMs: undefined }
  const expiry = properties?.messageExpiryInterval
  const expiryMs = expiry === undefined ? undefined : expiry * MS
  if (target.isStream !== true) return { firstLeaseMs: expiryMs, leaseMs: undefined }
  const leaseMs = leaseMsOf(properties?.userProperties?.[LEASE])
  if (leaseMs === undefined) return { firstLeaseMs: undefined, leaseMs: undefined }
  return { firstLeaseMs: Math.max(leaseMs, expiryMs ?? 0), leaseMs }
}

function leaseMsOf(value: string | readonly string[] | undefined): number | undefined {
  const seconds = typeof value === 'string' && /^\d{1,5}$/.test(value) ? Number(value) : 0
  return seconds >= 1 && seconds <= MAX_LEASE_SECONDS ? seconds * MS : undefined
}

/** Returns the error of a request whose publish failed, or undefined. */
export function requestFailure(topic: string, outcome: PublishOutcome): MqttError | undefined {
  switch (outcome.status) {
    case 'sent':
    case 'stored':
      return undefined
    case 'acknowledged':
      return outcome.reasonCode === NO_MATCHING_SUBSCRIBERS
        ? new MqttError('NO_RESPONDER', `nobody subscribes to "${topic}"`, { reasonCode: outcome.reasonCode })
        : undefined
    case 'refused':
      return new MqttError(
        'NOT_SENT',
        `the broker refused the request on "${topic}"${outcome.reasonString === undefined ? '' : `: ${outcome.reasonString}`}`,
        { reasonCode: outcome.reasonCode },
      )
    case 'dropped':
      return new MqttError('NOT_SENT', `the request on "${topic}" was dropped: ${outcome.reason}`)
    case 'lost':
      return new MqttError('CONNECTION_LOST', `the request on "${topic}" was lost`, { cause: outcome.cause })
  }
}

function isEnvelope(
  decoded: unknown,
): decoded is { pattern: unknown; data: unknown; id: string; metadata?: unknown } {
  if (typeof decoded !== 'object' || decoded === null || Array.isArray(decoded)) return false
  if (!('pattern' in decoded && 'data' in decoded && 'id' in decoded)) return false
  const keys = 'metadata' in decoded ? 4 : 3
  return typeof decoded.id === 'string' && hasKeys(decoded, keys)
}

/** Stops counting early, because a payload may have a million keys. */
function hasKeys(value: object, wanted: number): boolean {
  let count = 0
  for (const _key in value) {
    count += 1
    if (count > wanted) return false
  }
  return count === wanted
}

const MAX_TOPICS = 1_000

/**
 * Topics that carry only responses. Wildcard handlers must not receive the responses that this connection sends or
 * receives as events.
 */
export class ResponseTopics {
  /** Reply topics of Nest's envelope, least recently used first. */
  private readonly topics = new Set<string>()

  /** @param prefix start of the private topics of all connections */
  constructor(private readonly prefix: string) {}

  add(topic: string): void {
    this.topics.delete(topic)
    this.topics.add(topic)
    if (this.topics.size <= MAX_TOPICS) return
    const [oldest = ''] = this.topics
    this.topics.delete(oldest)
  }

  has(topic: string): boolean {
    return topic.startsWith(`${this.prefix}/`) || this.topics.has(topic)
  }
}

export function blockedError(topic: string): MqttError {
  const text = `the request on "${topic}" is blocked: the broker delivers no more messages, because all unacknowledged messages belong to handlers that wait for responses; deliver requests and responses at QoS 0 (requests.responseQos, and qos of the handlers), or raise inbound.maxInFlight (on MQTT 3.1.1 the limit of the broker)`
  return new MqttError('REQUEST_BLOCKED', text)
}

/** @param missing number of responses that did not arrive, of those that the responder has sent */
export function incompleteError(topic: string, missing: number, sent: number): MqttError {
  const text = `${missing} of ${sent} responses to the request on "${topic}" did not arrive; if every response matters, set qos: 1 on the request and on its handler`
  return new MqttError('RESPONSE_LOST', text)
}

export function tooManyError(maxOpen: number): MqttError {
  const text = `there is no room for another request: requests.maxOpen is ${maxOpen}; raise it, or send fewer requests at a time`
  return new MqttError('TOO_MANY_REQUESTS', text)
}

export function abortedError(topic: string, signal: AbortSignal | undefined): MqttError {
  return new MqttError('ABORTED', `the request on "${topic}" was aborted`, { cause: signal?.reason })
}

/** Whether the application accepts a topic that a requester chose for its responses. An error of its function rejects it. */
export function isAllowedBy(allow: ((topic: string) => boolean) | undefined, topic: string): boolean {
  try {
    return allow === undefined || allow(topic) === true
  } catch {
    return false
  }
}
