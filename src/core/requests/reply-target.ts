import type { PublishPacket } from '../protocol/packets.js'
import { isTopicName } from '../topic/topic-filter.js'

/** How the responder is asked: as MQTT 5 has it, or with the envelope of Nest's built-in transport. */
export type RequestProtocol = 'mqtt5' | 'nest'

/** Where the answer of a request goes. */
export type ReplyTarget =
  | {
      readonly kind: 'mqtt5'
      readonly topic: string
      readonly correlationData: Buffer | undefined
      /** The requester takes several answers. */
      readonly isStream?: boolean
    }
  /** The envelope of Nest's built-in transport, for MQTT 3.1.1. */
  | { readonly kind: 'nest'; readonly topic: string; readonly id: string }

export interface Incoming {
  readonly data: unknown
  readonly replyTo: ReplyTarget | undefined
  /** The data is that of an envelope, and the codec of the handler has not seen it. */
  readonly isRaw?: boolean
  /** What the envelope carries beside the data. */
  readonly metadata?: unknown
}

/**
 * What a `@MessagePattern` handler gets, and whether somebody asked for an answer: by a Response Topic, or by an
 * envelope that has the built-in transport's full shape. Everything else is a plain message.
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
 * What the built-in `emit()` sends: `{ pattern, data }`, where the pattern is that of the topic, and `metadata` where
 * the sender has some. Everything else is a plain message.
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

/** The Response Topic of a request (MQTT 5, 4.10), which is known whatever the payload is. */
export function responseTarget(packet: PublishPacket): ReplyTarget | undefined {
  const { responseTopic, correlationData, userProperties } = packet.properties ?? {}
  if (responseTopic === undefined || !isSafe(responseTopic)) return undefined
  const target = { kind: 'mqtt5', topic: responseTopic, correlationData } as const
  return userProperties?.[STREAM] === 'true' ? { ...target, isStream: true } : target
}

/** A requester must not be able to make this process publish to the broker's own topics, or to no topic at all. */
export function isSafe(responseTopic: string): boolean {
  return isTopicName(responseTopic) && !responseTopic.startsWith('$')
}

/** User Property of a request whose responder may answer several times. */
export const STREAM = 'stream'

/** User Property of such a request: its requester renews the stream at least once in so many seconds. */
export const LEASE = 'lease'

function isEnvelope(
  decoded: unknown,
): decoded is { pattern: unknown; data: unknown; id: string; metadata?: unknown } {
  if (typeof decoded !== 'object' || decoded === null || Array.isArray(decoded)) return false
  if (!('pattern' in decoded && 'data' in decoded && 'id' in decoded)) return false
  const keys = 'metadata' in decoded ? 4 : 3
  return typeof decoded.id === 'string' && hasKeys(decoded, keys)
}

/** Counts no further than it must: a payload may have a million keys. */
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
 * Topics that carry answers and nothing else: a wildcard handler must not take an answer that this connection gave, or
 * gets, for an event.
 */
export class OwnReplies {
  /** Reply topics of Nest's envelope, in the order of their last use. */
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
