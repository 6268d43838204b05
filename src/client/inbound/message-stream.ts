import { type PayloadCheck, validPayload } from '../../options/codec.js'
import { limited } from '../waits.js'
import type { InboundHandler } from './delivery.js'

/** Thrown by a handler that has not accepted the message: the broker may deliver it again. */
export class NotTaken extends Error {}

/** Thrown in place of a run: the handler has handled a copy of the message. */
export class Duplicate extends Error {}

/** Thrown in place of a run while the handler runs for a copy of the message. */
export class CopyRuns extends Error {
  /** @param ended resolves when that run has ended */
  constructor(readonly ended: Promise<void>) {
    super('the handler runs for a copy of this message, and inbound.maxQueued messages wait already')
  }
}

interface Entry<T> {
  readonly message: T
  /** Size of a message that may be dropped. The bytes of other messages are counted until they are finished. */
  readonly bytes: number | undefined
  readonly packet: object
  readonly done: () => void
  readonly leave: (error: NotTaken) => void
}

export interface StreamLimits {
  readonly limit: number
  readonly overflow: 'drop-oldest' | 'drop-newest'
  /** A message was dropped to make room for another one. */
  readonly onDropped?: (packet: object) => void
  /** Bytes held by all loops and handlers together. */
  readonly held: {
    readonly shareOfLoop: number
    hasNoRoomFor(bytes: number): boolean
    add(bytes: number): void
    remove(bytes: number): void
  }
}

const TAKEN = Promise.resolve()
const NO_PACKET = {}

/**
 * Messages for a `for await` loop. A QoS 1 or 2 message counts as handled when the loop requests the next one. The number
 * of waiting QoS 0 messages is limited.
 */
export class MessageStream<T> implements AsyncIterableIterator<T> {
  private readonly waiting: Entry<T>[] = []
  private droppable = 0
  private droppableBytes = 0
  private readonly readers: ((result: IteratorResult<T, undefined>) => void)[] = []
  private current: Entry<T> | undefined
  private isEnded = false
  private lost = 0

  constructor(
    private readonly limits: StreamLimits,
    private readonly onEnd: () => void,
  ) {}

  /** QoS 0 messages that were dropped since the start of the loop. */
  get dropped(): number {
    return this.lost
  }

  /**
   * Resolves when the loop has finished the message, and rejects if the loop ended before.
   * @param bytes size of a message that may be dropped; such a message does not wait for the loop
   * @param packet the packet of the message
   */
  push(message: T, bytes: number | undefined, packet: object = NO_PACKET): Promise<void> {
    if (this.isEnded) return Promise.reject(new NotTaken())
    if (bytes !== undefined) {
      this.add({ message, bytes, packet, done: ignore, leave: ignore })
      return TAKEN
    }
    return new Promise((done, leave) => this.add({ message, bytes, packet, done, leave }))
  }

  next(): Promise<IteratorResult<T, undefined>> {
    this.settleCurrent()
    const entry = this.waiting.shift()
    if (entry !== undefined) {
      if (entry.bytes !== undefined) this.count(entry.bytes, -1)
      return Promise.resolve({ done: false, value: this.hand(entry) })
    }
    if (this.isEnded) return Promise.resolve({ done: true, value: undefined })
    return new Promise(resolve => this.readers.push(resolve))
  }

  /** The loop has ended. It does not take the messages that it has not read. */
  return(): Promise<IteratorResult<T, undefined>> {
    this.settleCurrent()
    this.leave()
    return Promise.resolve({ done: true, value: undefined })
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  /** No further messages are wanted. */
  leave(): void {
    for (const entry of this.takeAll()) entry.done()
    this.end()
  }

  /** No further messages arrive. The broker keeps those that the loop has not read. */
  end(): void {
    if (this.isEnded) return
    this.isEnded = true
    for (const entry of this.takeAll()) entry.leave(new NotTaken())
    for (const read of this.readers.splice(0)) read({ done: true, value: undefined })
    this.onEnd()
  }

  private add(entry: Entry<T>): void {
    const reader = this.readers.shift()
    if (reader !== undefined) return reader({ done: false, value: this.hand(entry) })
    this.waiting.push(entry)
    if (entry.bytes === undefined) return
    this.count(entry.bytes, 1)
    this.makeRoom(entry)
  }

  private makeRoom(came: Entry<T>): void {
    const { limit, overflow, held } = this.limits
    const isOver = () =>
      this.droppable > limit || (this.droppable > 1 && this.droppableBytes > held.shareOfLoop)
    while (isOver() || held.hasNoRoomFor(came.bytes ?? 0)) {
      const isAlone = this.droppable === 1
      const dropped = overflow === 'drop-newest' || isAlone ? came : this.waiting.find(isDroppable)
      if (dropped === undefined) return
      this.waiting.splice(this.waiting.indexOf(dropped), 1)
      this.count(dropped.bytes ?? 0, -1)
      this.lost += 1
      this.limits.onDropped?.(dropped.packet)
      if (dropped === came) return
    }
  }

  /** The number of waiting messages that may be dropped has changed by one. */
  private count(bytes: number, difference: 1 | -1): void {
    this.droppable += difference
    this.droppableBytes += difference * bytes
    if (difference > 0) this.limits.held.add(bytes)
    else this.limits.held.remove(bytes)
  }

  private takeAll(): Entry<T>[] {
    const all = this.waiting.splice(0)
    for (const { bytes } of all) if (bytes !== undefined) this.count(bytes, -1)
    return all
  }

  private hand(entry: Entry<T>): T {
    // A consumer that requests several messages at a time finishes one with each further request.
    this.settleCurrent()
    this.current = entry
    return entry.message
  }

  private settleCurrent(): void {
    this.current?.done()
    this.current = undefined
  }
}

const ignore = (): void => {}

function isDroppable({ bytes }: { readonly bytes: number | undefined }): boolean {
  return bytes !== undefined
}

/**
 * Returns a function that validates the payloads of a handler in order of arrival: each waits for those before it, because a
 * schema may take longer for one message than for the next. `timeoutMs` of the handler limits each validation, so that one
 * that never ends does not stop the handler.
 */
export function validatesInOrder(
  check: PayloadCheck,
  { name, timeoutMs }: Pick<InboundHandler, 'name' | 'timeoutMs'>,
): (packet: { readonly topic: string }, value: unknown) => Promise<unknown> {
  let before: Promise<void> = Promise.resolve()
  return async (packet, value) => {
    const output = validPayload(check, packet, value)
    const valid =
      output instanceof Promise
        ? limited(output, `the schema for "${name}"`, timeoutMs)
        : Promise.resolve(output)
    // Without a result, which would refer to the payloads of all messages before it.
    before = Promise.allSettled([valid, before]).then(() => {})
    await before
    return valid
  }
}

/** Limit of an asynchronous validation that no other time limits. */
export const MAX_VALIDATION_MS = 10_000

/** Validates a payload. Rejects with `TIMEOUT` if the schema does not end in time. @throws MqttError `PAYLOAD_INVALID` */
export function validWithin(
  timeoutMs: number,
  check: PayloadCheck,
  packet: { readonly topic: string },
  value: unknown,
): unknown {
  const output = validPayload(check, packet, value)
  return output instanceof Promise ? limited(output, `the schema for "${packet.topic}"`, timeoutMs) : output
}
