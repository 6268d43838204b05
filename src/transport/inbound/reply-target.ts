import { isTopicName } from '../../topic/topic-filter.js'
import type { PublishPacket } from '../connection/link.js'

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
  return { data: decoded.data, replyTo: isSafe(topic) ? { kind: 'nest', topic, id: decoded.id } : undefined }
}

/** What the built-in `emit()` sends: exactly `{ pattern, data }`, where the pattern is the topic. */
export function unwrapEvent(topic: string, decoded: unknown): unknown {
  if (typeof decoded !== 'object' || decoded === null) return decoded
  const keys = Object.keys(decoded)
  const isEvent =
    'pattern' in decoded &&
    decoded.pattern === topic &&
    keys.every(key => key === 'pattern' || key === 'data')
  if (!isEvent) return decoded
  return 'data' in decoded ? decoded.data : undefined
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

const ENVELOPE_KEYS = ['data', 'id', 'pattern']

function isEnvelope(decoded: unknown): decoded is { pattern: unknown; data: unknown; id: string } {
  if (typeof decoded !== 'object' || decoded === null) return false
  const keys = Object.keys(decoded).sort()
  return keys.join() === ENVELOPE_KEYS.join() && 'id' in decoded && typeof decoded.id === 'string'
}
