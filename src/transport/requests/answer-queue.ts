import type { Observable, Subscription } from 'rxjs'
import { MqttError } from '../../errors.js'

/** How a stream of answers ended: all are sent, the last one as such; or nothing was sent that says so. */
export type AnswersEnd = 'said' | 'open' | 'cancelled'

const MAX_ON_THEIR_WAY = 32

/** Sends the values of a source one after the other, each behind the one before it. */
export class AnswerQueue {
  private readonly waiting: unknown[] = []
  private readonly onTheirWay: Promise<void>[] = []
  private subscription: Subscription | undefined
  private isComplete = false
  private isCancelled = false
  private failure: { readonly error: unknown } | undefined
  private wake: () => void = () => {}

  constructor(
    private readonly limit: number,
    private readonly send: (value: unknown, isLast: boolean) => Promise<void>,
  ) {}

  /** Rejects with the error of the source, once what came before it is sent. */
  async take(source: Observable<unknown>): Promise<AnswersEnd> {
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
      this.subscription.unsubscribe()
    }
  }

  private async sendAll(): Promise<AnswersEnd> {
    for (;;) {
      if (this.isCancelled) return 'cancelled'
      if (this.waiting.length > 0) {
        const isLast = this.isComplete && this.waiting.length === 1
        await this.sendOne(this.waiting.shift(), isLast)
        if (isLast) return this.ended('said')
      } else if (this.failure !== undefined) throw this.failure.error
      else if (this.isComplete) return this.ended('open')
      else await this.somethingNew()
    }
  }

  /** Nobody wants the answers any more. */
  cancel(): void {
    this.isCancelled = true
    this.stop()
  }

  /** No more of them are on their way than a link with long round trips needs. */
  private async sendOne(value: unknown, isLast: boolean): Promise<void> {
    const sent = this.send(value, isLast)
    // What goes wrong is told when its turn comes.
    sent.catch(() => {})
    this.onTheirWay.push(sent)
    if (this.onTheirWay.length > MAX_ON_THEIR_WAY) await this.onTheirWay.shift()
  }

  /** What could not be sent is told before the end. */
  private async ended(end: AnswersEnd): Promise<AnswersEnd> {
    await Promise.all(this.onTheirWay)
    return end
  }

  private get isOver(): boolean {
    return this.isCancelled || this.failure !== undefined
  }

  private add(value: unknown): void {
    if (this.waiting.length >= this.limit) {
      const text = `${this.limit} answers wait for the connection; the stream is faster than it`
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
