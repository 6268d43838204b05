import { NotTaken } from './delivery.js'

interface Entry<T> {
  readonly message: T
  /** Size, if the message may be dropped. The bytes of other messages are counted until they are done. */
  readonly bytes: number | undefined
  readonly packet: object
  readonly done: () => void
  readonly leave: (error: NotTaken) => void
}

export interface StreamLimits {
  readonly limit: number
  readonly overflow: 'drop-oldest' | 'drop-newest'
  /** A message had to make room for another one. */
  readonly onDropped?: (packet: object) => void
  /** Bytes that are held, by all loops and handlers together. */
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
 * Messages for a `for await` loop. One of QoS 1 and 2 counts as handled when the loop asks for the next one; of QoS 0
 * no more wait than the limit.
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

  /** QoS 0 messages that made room for others since the start of the loop. */
  get dropped(): number {
    return this.lost
  }

  /**
   * Resolves when the loop is done with the message, and rejects when it ended before.
   * @param bytes of a message that may be dropped, with which nobody waits for the loop
   * @param packet what the message came in
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

  /** The loop is left: what it has not taken is not wanted by it. */
  return(): Promise<IteratorResult<T, undefined>> {
    this.settleCurrent()
    this.leave()
    return Promise.resolve({ done: true, value: undefined })
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  /** Nothing is wanted any more. */
  leave(): void {
    for (const entry of this.takeAll()) entry.done()
    this.end()
  }

  /** Nothing comes any more. What the loop has not taken is left to the broker. */
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

  /** One more message that may be dropped waits, or one less. */
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
    // Who reads several at a time is done with one at the next.
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
