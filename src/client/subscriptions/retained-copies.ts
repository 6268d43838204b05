import {
  isSameOptions,
  type SeparateFilters,
  separateFilters,
} from '../../core/subscriptions/subscription-rules.js'
import { matchesTopicFilter, type TopicFilter } from '../../core/topic/topic-filter.js'
import type { PublishPacket } from '../connection/link.js'
import type { InboundHandler } from '../inbound/delivery.js'
import type { MqttSession } from '../mqtt-session.js'
import { Subscription } from './subscription-entries.js'
import type { SubscriptionTable } from './subscription-table.js'

/** Most retained messages of other topics in one synchronisation. Brokers drop what exceeds the queue of a client. */
const MOST_OTHERS = 100
/** How often a connection may end before SUBACK until the separate filters are taken for the cause. */
const MOST_FAILURES = 2
/** Interval of further PINGREQ packets, in case a PINGRESP is lost. */
const PING_AGAIN_MS = 5_000

/**
 * Retained messages that the broker sends again for one cache: through filters that nothing else uses, with a Subscription
 * Identifier of their own. The subscription that handlers share with the cache remains as it is.
 */
export class SeparateCopies {
  readonly identifier: number
  /** The broker accepts these filters, and they match few other topics. */
  isSuitable = true
  private readonly separate: SeparateFilters
  private entries: readonly Subscription[] = []
  private received = 0
  private others = 0
  /** How often in a row the connection ended before SUBACK. */
  private failures = 0
  private ended: Promise<unknown> = Promise.resolve()

  constructor(
    private readonly session: MqttSession,
    private readonly topicFilter: TopicFilter,
    private readonly handler: InboundHandler,
  ) {
    this.separate = separateFilters(topicFilter)
    this.identifier = session.identifiers.assign(this.separate.all)
    session.routes.addNamed(this.separate.all.subscription, handler)
  }

  /** @returns whether the broker sends the retained messages */
  async subscribe(): Promise<boolean> {
    const { connection, subscriptions } = this.session
    const { filters } = this.separate
    const known = subscriptions.entryOf(this.topicFilter.subscription)
    const isFree = filters.every(({ subscription }) => subscriptions.entryOf(subscription) === undefined)
    const hasIdentifiers = connection.limits?.subscriptionIdentifiersAvailable === true
    if (known === undefined || !isFree || !hasIdentifiers || !this.isSuitable || filters.length === 0)
      return false
    this.others = 0
    const entries = filters.map(
      filter =>
        new Subscription(
          filter,
          { ...known.options, retainHandling: 0, retainAsPublished: false },
          this.identifier,
        ),
    )
    this.entries = entries
    try {
      await raise(known, subscriptions)
      await Promise.all(entries.map(entry => subscriptions.request(entry)))
      this.failures = 0
      return true
    } catch {
      // Refused, if the connection has not ended.
      if (this.entries !== entries) return false
      this.isSuitable = false
      void this.unsubscribe()
      return false
    }
  }

  get areComing(): boolean {
    return this.entries.length > 0
  }

  /** Whether the broker sent a message for these filters only. */
  haveBrought({ topic, retain, properties }: PublishPacket): boolean {
    if (properties?.subscriptionIdentifier !== this.identifier) return false
    this.received += 1
    if (!retain || matchesTopicFilter(this.topicFilter, topic)) return true
    this.others += 1
    if (this.others > MOST_OTHERS) this.isSuitable = false
    return true
  }

  /**
   * Whether the RETAIN flag of a message says nothing: it is live, and the broker sent it once for several subscriptions, of
   * which this one has no Retain As Published.
   */
  obscure(identifiers: number | readonly number[] | undefined): boolean {
    return Array.isArray(identifiers) && identifiers.includes(this.identifier)
  }

  /** Resolves when the broker has removed the filters, or has refused to. */
  unsubscribe(): Promise<unknown> {
    const { entries, ended } = this
    this.entries = []
    const removed = entries.map(entry => this.session.subscriptions.withdraw(entry))
    this.ended = Promise.allSettled([ended, ...removed])
    return this.ended
  }

  /** The connection has ended, perhaps because the broker accepts no such filters. */
  interrupt(): void {
    if (this.entries.some(({ status }) => status !== 'granted')) this.failures += 1
    if (this.failures >= MOST_FAILURES) this.isSuitable = false
    void this.unsubscribe()
  }

  async end(): Promise<void> {
    await this.unsubscribe()
    for (let before = -1; before !== this.received; ) {
      before = this.received
      if (!(await roundTrip(this.session))) break
    }
    this.session.identifiers.release(this.identifier)
    this.session.routes.removeNamed(this.separate.all.subscription, this.handler)
  }
}

/** Tells the broker the options that a cache has added. */
async function raise(known: Subscription, subscriptions: SubscriptionTable): Promise<void> {
  const { filter, options, identifier, sentOptions = options } = known
  if (isSameOptions(sentOptions, options)) return
  const raised = new Subscription(filter, { ...options, retainHandling: 2 }, identifier)
  try {
    await subscriptions.request(raised)
    known.sentOptions = options
  } finally {
    void subscriptions.withdraw(raised)
  }
}

/** Resolves with PINGRESP, or with false if the connection ends. The broker has then sent everything before it. */
export function roundTrip({ publisher }: Pick<MqttSession, 'publisher'>): Promise<boolean> {
  return new Promise(resolve => {
    const timer = setInterval(() => publisher.roundTrip(settle), PING_AGAIN_MS)
    const settle = (isDone: boolean): void => {
      clearInterval(timer)
      // By then, the handlers of earlier messages have started.
      setImmediate(() => resolve(isDone))
    }
    publisher.roundTrip(settle)
  })
}
