import { NotTaken } from './inbound/inbound-handler.js'

interface Entry<T> {
  readonly message: T
  readonly mayDrop: boolean
  readonly done: () => void
  readonly leave: (error: NotTaken) => void
}

export interface StreamLimits {
  readonly limit: number
  readonly overflow: 'drop-oldest' | 'drop-newest'
}

const TAKEN = Promise.resolve()

/**
 * Messages for a `for await` loop. One of QoS 1 and 2 counts as handled when the loop asks for the next one; of QoS 0
 * no more wait than the limit.
 */
export class MessageStream<T> implements AsyncIterableIterator<T> {
  private readonly waiting: Entry<T>[] = []
  private droppable = 0
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

  /** Resolves when the loop is done with the message, and rejects when it ended before. */
  push(message: T, mayDrop: boolean): Promise<void> {
    if (this.isEnded) return Promise.reject(new NotTaken())
    if (mayDrop) {
      this.add({ message, mayDrop, done: ignore, leave: ignore })
      return TAKEN
    }
    return new Promise((done, leave) => this.add({ message, mayDrop, done, leave }))
  }

  next(): Promise<IteratorResult<T, undefined>> {
    this.settleCurrent()
    const entry = this.waiting.shift()
    if (entry !== undefined) return Promise.resolve({ done: false, value: this.hand(entry) })
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
    for (const entry of this.waiting.splice(0)) entry.done()
    this.end()
  }

  /** Nothing comes any more. What the loop has not taken is left to the broker. */
  end(): void {
    if (this.isEnded) return
    this.isEnded = true
    for (const entry of this.waiting.splice(0)) entry.leave(new NotTaken())
    for (const read of this.readers.splice(0)) read({ done: true, value: undefined })
    this.onEnd()
  }

  private add(entry: Entry<T>): void {
    const reader = this.readers.shift()
    if (reader !== undefined) return reader({ done: false, value: this.hand(entry, false) })
    if (entry.mayDrop && this.droppable >= this.limits.limit) {
      this.lost += 1
      if (this.limits.overflow === 'drop-newest') return
      this.waiting.splice(
        this.waiting.findIndex(other => other.mayDrop),
        1,
      )
      this.droppable -= 1
    }
    this.waiting.push(entry)
    if (entry.mayDrop) this.droppable += 1
  }

  private hand(entry: Entry<T>, hasWaited = true): T {
    if (entry.mayDrop && hasWaited) this.droppable -= 1
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
