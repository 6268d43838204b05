import { type DelayRule, reconnectDelayMs } from '../../core/connection/reconnect-rules.js'
import type { MqttError } from '../../core/errors.js'
import { refusal, type SubscriptionOptions } from '../../core/subscriptions/subscription-rules.js'
import type { TopicFilter } from '../../core/topic/topic-filter.js'
import { type WaitOptions, waitFor } from '../waits.js'

/** One filter in the table of a connection. */
export class Subscription {
  status: 'unsent' | 'sent' | 'granted' | 'refused' = 'unsent'
  /** Why it is refused. */
  refusal: MqttError | undefined
  /** The refusal has been logged, and the filter has not been granted since. */
  isRefusalLogged = false
  /** The warning that the broker may not support Shared Subscriptions has been logged. */
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

  /** Resolves when the broker grants the filter. Rejects when it refuses it, or when the filter is not sent any more. */
  whenGranted(wait: WaitOptions): Promise<void> {
    return waitFor(`response to the subscription "${this.name}"`, wait, settle => {
      this.waiters.add(settle)
      return () => this.waiters.delete(settle)
    })
  }

  /** Ends all waits. */
  settle(failure?: MqttError): void {
    const waiters = [...this.waiters]
    this.waiters.clear()
    for (const waiter of waiters) waiter(failure)
  }
}

/** Sends refused filters again, after delays that grow: access rules may change during a connection. */
export class RefusalRetry {
  private timer: NodeJS.Timeout | undefined
  private rounds = 0

  constructor(
    private readonly delay: DelayRule,
    private readonly retry: () => void,
  ) {}

  /** The broker has responded to every SUBSCRIBE. @param refused one of the refused filters, if any */
  schedule(refused: string | undefined): void {
    if (refused === undefined) {
      this.rounds = 0
      return
    }
    this.rounds += 1
    this.stop()
    const cause = refusal(refused, 'refused before')
    const delayMs = reconnectDelayMs(this.delay, this.rounds, cause, 0, Math.random())
    this.timer = setTimeout(() => this.retry(), delayMs)
  }

  stop(): void {
    clearTimeout(this.timer)
  }
}
