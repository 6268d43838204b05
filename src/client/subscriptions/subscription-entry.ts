import type { MqttError } from '../../core/errors.js'
import type { SubscriptionOptions } from '../../core/subscriptions/subscription-rules.js'
import type { TopicFilter } from '../../core/topic/topic-filter.js'
import { type WaitOptions, waitFor } from '../connection/connection-wait.js'

/** One filter in the table of a connection. */
export class Subscription {
  status: 'unsent' | 'sent' | 'granted' | 'refused' = 'unsent'
  /** Why it is refused. */
  refusal: MqttError | undefined
  /** The broker's refusal has been told, and nothing better since. */
  isRefusalTold = false
  /** It was said that nobody knows whether the broker shares it. */
  isShareDoubted = false
  /** Whether the session at the broker has this filter: `maybe` from SUBSCRIBE to SUBACK. */
  atBroker: 'no' | 'maybe' | 'yes' = 'no'
  private readonly waiters = new Set<(failure?: MqttError) => void>()

  constructor(
    readonly filter: TopicFilter,
    public options: SubscriptionOptions,
    readonly identifier: number,
  ) {}

  /** The Topic Filter, with the group of a Shared Subscription. */
  get name(): string {
    return this.filter.subscription
  }

  sent(): void {
    this.status = 'sent'
    if (this.atBroker === 'no') this.atBroker = 'maybe'
  }

  granted(): void {
    this.status = 'granted'
    this.atBroker = 'yes'
    this.refusal = undefined
    this.settle()
  }

  refused(error: MqttError): void {
    this.status = 'refused'
    if (this.atBroker === 'maybe') this.atBroker = 'no'
    this.refusal = error
    this.settle(error)
  }

  /** Resolves when the broker grants it, and rejects when it is refused or will not be asked for. */
  whenGranted(wait: WaitOptions): Promise<void> {
    return waitFor(`response to the subscription "${this.name}"`, wait, settle => {
      this.waiters.add(settle)
      return () => this.waiters.delete(settle)
    })
  }

  /** Tells those who wait how it ended. */
  settle(failure?: MqttError): void {
    const waiters = [...this.waiters]
    this.waiters.clear()
    for (const waiter of waiters) waiter(failure)
  }
}

/** Asks for what was refused again, after delays that grow: access rules change while a connection lasts. */
export class RefusalRetry {
  private timer: NodeJS.Timeout | undefined
  private rounds = 0

  constructor(
    /** @param round refusals in a row, from 1 */
    private readonly delayMs: (round: number, subscription: string) => number,
    private readonly retry: () => void,
  ) {}

  /** The broker has responded to every SUBSCRIBE. @param refused one of the refused filters, if any */
  answered(refused: string | undefined): void {
    if (refused === undefined) {
      this.rounds = 0
      return
    }
    this.rounds += 1
    this.stop()
    this.timer = setTimeout(() => this.retry(), this.delayMs(this.rounds, refused))
  }

  stop(): void {
    clearTimeout(this.timer)
  }
}
