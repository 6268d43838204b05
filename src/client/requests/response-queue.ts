import { MqttError } from '../../core/errors.js'

/** How a stream of responses ended: with a last response that ends it, or without one. */
export type AnswersEnd = 'said' | 'open' | 'cancelled'

const MAX_ON_THEIR_WAY = 32
/** Many streams share what may wait for the link. */
const MAX_BYTES_ON_THEIR_WAY = 65_536

export interface AnswerOnItsWay {
  readonly bytes: number
  /** Rejects when it does not get to the broker. */
  readonly sent: Promise<void>
}

/** What gives values by itself, as an Observable does. */
export interface ValueSource {
  subscribe(observer: {
    next(value: unknown): void
    error(error: unknown): void
    complete(): void
  }): ValueSubscription
}

interface ValueSubscription {
  unsubscribe(): void
}

/** Sends the values of a source one after the other, each behind the one before it. */
export class AnswerQueue {
  private readonly waiting: unknown[] = []
  private readonly onTheirWay: AnswerOnItsWay[] = []
  private bytesOnTheirWay = 0
  private subscription: ValueSubscription | undefined
  private isComplete = false
  private isCancelled = false
  private failure: { readonly error: unknown } | undefined
  private wake: () => void = () => {}

  constructor(
    private readonly limit: number,
    private readonly send: (value: unknown, isLast: boolean) => AnswerOnItsWay,
  ) {}

  /** Rejects with the error of the source, once what came before it is sent. */
  async take(source: ValueSource): Promise<AnswersEnd> {
    this.subscription = source.subscribe({
      next: value => this.add(value),
      error: (error: unknown) => this.fail(error),
      complete: () => {
        this.isComplete = true
        this.wake()
      },
    })
    if (this.isOver) this.subscription.unsubscribe()
    try {
      return await this.sendAll()
    } finally {
      this.stop()
    }
  }

  /** As `take`, for a source that waits to be asked for each value. */
  async takeEach(source: AsyncIterable<unknown>, signal: AbortSignal): Promise<AnswersEnd> {
    const iterator = source[Symbol.asyncIterator]()
    const abort = (): void => this.fail(signal.reason)
    signal.addEventListener('abort', abort)
    try {
      return await this.sendEach(iterator)
    } finally {
      signal.removeEventListener('abort', abort)
      // One that waits for something of its own ends when that has come.
      iterator.return?.().catch(() => {})
    }
  }

  private async sendEach(iterator: AsyncIterator<unknown>): Promise<AnswersEnd> {
    for (;;) {
      const next = await Promise.race([iterator.next(), this.somethingNew()])
      if (this.isCancelled) return 'cancelled'
      if (this.failure !== undefined) throw this.failure.error
      if (next === undefined) continue
      if (next.done === true) return this.allSent('open')
      await this.sendOne(next.value, false)
    }
  }

  private async sendAll(): Promise<AnswersEnd> {
    for (;;) {
      if (this.isCancelled) return 'cancelled'
      if (this.waiting.length > 0) {
        const isLast = this.isComplete && this.waiting.length === 1
        await this.sendOne(this.waiting.shift(), isLast)
        if (isLast) return this.allSent('said')
      } else if (this.failure !== undefined) throw this.failure.error
      else if (this.isComplete) return this.allSent('open')
      else await this.somethingNew()
    }
  }

  /** Discards the remaining responses. */
  cancel(): void {
    this.isCancelled = true
    this.stop()
  }

  /** No more of them are on their way than a link with long round trips needs. */
  private async sendOne(value: unknown, isLast: boolean): Promise<void> {
    const answer = this.send(value, isLast)
    // The error is reported when this response is next in order.
    answer.sent.catch(() => {})
    this.onTheirWay.push(answer)
    this.bytesOnTheirWay += answer.bytes
    while (this.onTheirWay.length > MAX_ON_THEIR_WAY || this.bytesOnTheirWay > MAX_BYTES_ON_THEIR_WAY)
      await this.oldestSent()
  }

  private async oldestSent(): Promise<void> {
    const oldest = this.onTheirWay.shift()
    this.bytesOnTheirWay -= oldest?.bytes ?? 0
    await oldest?.sent
  }

  /** Ends the stream only after all earlier responses have been sent. */
  private async allSent(end: AnswersEnd): Promise<AnswersEnd> {
    while (this.onTheirWay.length > 0) await this.oldestSent()
    return end
  }

  private get isOver(): boolean {
    return this.isCancelled || this.failure !== undefined
  }

  private add(value: unknown): void {
    if (this.waiting.length >= this.limit) {
      const text = `${this.limit} responses wait for the connection; the stream produces values faster than the link carries them`
      return this.fail(new MqttError('NOT_SENT', text))
    }
    this.waiting.push(value)
    this.wake()
  }

  private fail(error: unknown): void {
    this.failure ??= { error }
    this.stop()
  }

  private stop(): void {
    this.subscription?.unsubscribe()
    this.wake()
  }

  private somethingNew(): Promise<void> {
    return new Promise(resolve => {
      this.wake = resolve
    })
  }
}
