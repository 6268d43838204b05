import type { PublishPacket } from '../protocol/packets.js'
import { isTopicName } from '../topic/topic-filter.js'

/** Format of a request: MQTT 5 properties, or the envelope of Nest's built-in transport. */
export type RequestProtocol = 'mqtt5' | 'nest'

/** Where the response to a request is sent. */
export type ReplyTarget =
  | {
      readonly kind: 'mqtt5'
      readonly topic: string
      readonly correlationData: Buffer | undefined
      /** Whether the requester accepts several responses. */
      readonly isStream?: boolean
    }
  /** The envelope of Nest's built-in transport, for MQTT 3.1.1. */
  | { readonly kind: 'nest'; readonly topic: string; readonly id: string }

export interface Incoming {
  readonly data: unknown
  readonly replyTo: ReplyTarget | undefined
  /** Whether `data` comes from an envelope and the codec of the handler has not decoded it yet. */
  readonly isRaw?: boolean
  /** Metadata of the envelope. */
  readonly metadata?: unknown
}

/**
 * Reads what a `@MessagePattern` handler receives, and where its response is sent. A request has a Response Topic, or an
 * envelope with exactly the keys of the built-in transport. Everything else is a plain message.
 */
export function readRequest(packet: PublishPacket, decoded: unknown): Incoming {
  if (packet.properties?.responseTopic !== undefined)
    return { data: decoded, replyTo: responseTarget(packet) }
  if (!isEnvelope(decoded)) return { data: decoded, replyTo: undefined }
  const topic = `${packet.topic}/reply`
  const { data, id, metadata } = decoded
  const replyTo: ReplyTarget | undefined = isSafe(topic) ? { kind: 'nest', topic, id } : undefined
  return metadata === undefined ? { data, replyTo } : { data, replyTo, metadata }
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
export function responseTarget(packet: PublishPacket): ReplyTarget | undefined {
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
export class OwnReplies {
  /** Reply topics of Nest's envelope, least recently used first. */
  private readonly topics = new Set<string>()

  constructor(private readonly responseTopicPrefix: string) {}

  add(topic: string): void {
    this.topics.delete(topic)
    this.topics.add(topic)
    if (this.topics.size <= MAX_TOPICS) return
    const [oldest = ''] = this.topics
    this.topics.delete(oldest)
  }

  has(topic: string): boolean {
    return topic.startsWith(`${this.responseTopicPrefix}/`) || this.topics.has(topic)
  }
}
