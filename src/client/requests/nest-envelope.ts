import type { OutboundMessage } from '../../core/outbound/outbound-message.js'
import { type IncomingRequest, readRequest } from '../../core/requests/request-rules.js'
import { parseTopicFilter } from '../../core/topic/topic-filter.js'
import {
  bytesCodec,
  type Codec,
  contentTypeCodec,
  decodePacket,
  jsonCodec,
  textCodec,
} from '../../options/codec.js'
import type { PublishPacket } from '../connection/link.js'
import { newHandler } from '../inbound/delivery.js'
import type { OpenRequests, RequestSession } from './open-requests.js'
import {
  type OutgoingRequest,
  type RequestPlan,
  responderError,
  responseSubscription,
} from './request-messages.js'

const OPENING = '{'.charCodeAt(0)
const KEYS = ['"pattern"', '"data"', '"id"']

/** Parses an envelope, which is always JSON. @returns undefined for another payload */
function parseEnvelope(payload: Buffer): unknown {
  if (payload[0] !== OPENING || !KEYS.every(key => payload.includes(key))) return undefined
  try {
    return jsonCodec.decode(payload)
  } catch {
    return undefined
  }
}

/**
 * Reads a request in Nest's envelope, or a plain message. An envelope is JSON, also for a handler with another codec:
 * its data is then `isRaw`, see `decodeEnvelopeData`.
 * @throws MqttError `PAYLOAD_NOT_DECODABLE`
 */
export function readEnvelope(codec: Codec, packet: PublishPacket): IncomingRequest & { isRaw?: boolean } {
  if (codec !== jsonCodec) {
    const request = readRequest(packet, parseEnvelope(Buffer.from(packet.payload)))
    if (request.target !== undefined) return { ...request, isRaw: true }
  }
  return readRequest(packet, decodePacket(codec, packet))
}

/**
 * Decodes the data of an envelope: text is a string; bytes are base64 or the JSON of a Buffer; a codec of the application
 * decodes these bytes, or the JSON text of any other value.
 * @throws MqttError `PAYLOAD_NOT_DECODABLE`
 */
export function decodeEnvelopeData(codec: Codec, topic: string, data: unknown): unknown {
  if (codec === jsonCodec || codec === contentTypeCodec) return data
  const bytes = bytesOfJson(data)
  if (codec === textCodec || codec === bytesCodec) {
    const raw = typeof data !== 'string' ? bytes : codec === textCodec ? Buffer.from(data) : fromBase64(data)
    return decodePacket(raw === undefined ? REFUSING : codec, { topic, payload: raw ?? Buffer.alloc(0) })
  }
  return decodePacket(codec, { topic, payload: bytes ?? jsonCodec.encode(data) })
}

const REFUSING: Codec = {
  encode: () => Buffer.alloc(0),
  decode: () => {
    throw new TypeError('the data of the envelope does not fit the codec of the handler')
  },
}

/** Reads `{ type: 'Buffer', data: [...] }`, the JSON of a Buffer. */
function bytesOfJson(data: unknown): Buffer | undefined {
  if (typeof data !== 'object' || data === null || !('type' in data) || data.type !== 'Buffer')
    return undefined
  if (!('data' in data) || !Array.isArray(data.data)) return undefined
  const bytes: unknown[] = data.data
  return bytes.every(isByte) ? Buffer.from(bytes) : undefined
}

function isByte(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= 255
}

function fromBase64(text: string): Buffer | undefined {
  return /^[A-Za-z0-9+/]*={0,2}$/.test(text) && text.length % 4 === 0
    ? Buffer.from(text, 'base64')
    : undefined
}

/** Called when the topic is granted, or with the reason why it is not. */
type Waiter = (refused: unknown) => void

/**
 * Waits for the grant of one topic on behalf of many requests. A request that times out leaves nothing behind, so that a
 * broker that never responds to SUBSCRIBE does not make memory grow.
 */
export class SharedGrant {
  private readonly waiters = new Set<Waiter>()
  private isWaiting = false

  constructor(
    private readonly subscriptions: RequestSession['subscriptions'],
    private readonly subscription: string,
  ) {}

  /** Whether nobody needs to wait. */
  get isGranted(): boolean {
    return this.subscriptions.isGranted(this.subscription)
  }

  /** @returns a function that stops waiting */
  wait(waiter: Waiter): () => void {
    this.waiters.add(waiter)
    this.start()
    return () => this.waiters.delete(waiter)
  }

  private start(): void {
    if (this.isWaiting) return
    this.isWaiting = true
    this.subscriptions.whenGranted(this.subscription).then(
      () => this.settle(undefined),
      (error: unknown) => this.settle(error),
    )
  }

  private settle(refused: unknown): void {
    this.isWaiting = false
    const waiters = [...this.waiters]
    this.waiters.clear()
    for (const waiter of waiters) waiter(refused)
  }
}

/** Number of reply topics that stay subscribed, so that a request does not need a SUBSCRIBE and an UNSUBSCRIBE. */
const MAX_REPLY_TOPICS = 256

interface ReplyTopic {
  /** Topic of the requests. */
  readonly requestTopic: string
  readonly grant: SharedGrant
  readonly remove: () => void
}

/** Receives the replies to requests in Nest's envelope, `{ pattern, data, id }`, on `<topic>/reply`. */
export class ReplyTopics {
  /** Least recently used first. */
  private readonly topics = new Map<string, ReplyTopic>()

  constructor(
    private readonly session: RequestSession,
    private readonly open: OpenRequests<RequestPlan>,
    private readonly qos: 0 | 1,
  ) {}

  /** The grant of the reply topic of a request topic, which is subscribed with its first use. */
  listen(requestTopic: string): SharedGrant {
    const topic = `${requestTopic}/reply`
    const known = this.topics.get(topic)
    if (known !== undefined) {
      this.topics.delete(topic)
      this.topics.set(topic, known)
      return known.grant
    }
    const filter = parseTopicFilter(topic)
    const handler = newHandler({
      name: topic,
      isPassive: true,
      isInternal: true,
      orderKey: 'none',
      run: async packet => this.take(packet),
    })
    this.session.responseTopics.add(topic)
    const remove = this.session.addRoute(filter, responseSubscription(this.qos), handler)
    const grant = new SharedGrant(this.session.subscriptions, filter.subscription)
    this.topics.set(topic, { requestTopic, grant, remove })
    this.session.subscriptions.flush()
    if (this.topics.size > MAX_REPLY_TOPICS) this.forgetOldest()
    return grant
  }

  private forgetOldest(): void {
    for (const [topic, { requestTopic, remove }] of this.topics) {
      if (this.open.hasTopic(requestTopic)) continue
      this.topics.delete(topic)
      return remove()
    }
  }

  /** Every requester on this topic receives all replies; the id tells which reply belongs to this one. */
  private take(packet: PublishPacket): void {
    const reply = readReply(packet)
    if (reply === undefined || !this.open.has(reply.id)) return
    if (reply.err !== undefined && reply.err !== null)
      return this.open.fail(reply.id, responderError(reply.err))
    if (reply.hasResponse && reply.isDisposed) return this.open.last(reply.id, reply.response)
    if (reply.hasResponse) this.open.next(reply.id, reply.response)
    if (reply.isDisposed) this.open.end(reply.id)
  }
}

/** Creates a request in the envelope. A Uint8Array is encoded like a Buffer. */
export function inEnvelope(id: string, request: OutgoingRequest): OutboundMessage {
  const { data, pattern = request.topic, metadata, ...message } = request
  return { ...message, payload: jsonCodec.encode({ pattern, data: asJson(data), id, metadata }) }
}

function asJson(data: unknown): unknown {
  return data instanceof Uint8Array && !Buffer.isBuffer(data) ? Buffer.from(data) : data
}

function readReply(packet: PublishPacket) {
  const value = parse(packet)
  if (typeof value !== 'object' || value === null || !('id' in value) || typeof value.id !== 'string')
    return undefined
  return {
    id: value.id,
    err: 'err' in value ? value.err : undefined,
    hasResponse: 'response' in value,
    response: 'response' in value ? value.response : undefined,
    isDisposed: 'isDisposed' in value && value.isDisposed === true,
  }
}

function parse(packet: PublishPacket): unknown {
  try {
    return jsonCodec.decode(Buffer.from(packet.payload))
  } catch {
    return undefined
  }
}
