import { type DelayRule, reconnectDelayMs } from '../../core/connection/reconnect-rules.js'
import { closedError, MqttError } from '../../core/errors.js'
import type { PacketIds } from '../../core/protocol/packets.js'
import { type AckRules, type BrokerLimits, describeReasonCode } from '../../core/protocol/packets.js'
import {
  batches,
  refusal,
  type SubscriptionCounters,
  type SubscriptionOptions,
  uncertainShare,
} from '../../core/subscriptions/subscription-rules.js'
import type { TopicFilter } from '../../core/topic/topic-filter.js'
import { AwaitedResponses } from '../connection/ack-deadline.js'
import type { Link, Packet } from '../connection/link.js'
import type { Hook, Notice } from '../events.js'
import { IdleWaiters, type WaitOptions, waitFor } from '../waits.js'

/** One filter that a connection subscribes to. */
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
  /** The options of the last SUBSCRIBE. */
  sentOptions: SubscriptionOptions | undefined
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

  /**
   * Whether a resumed session has the filter. What the broker refused is sent again, and so are Shared Subscriptions: mosquitto
   * 2.0 loses them in a restart and still reports the session as present. They receive no retained messages, so sending them
   * again has no other effect.
   */
  get isKeptBySession(): boolean {
    return this.status === 'granted' && this.filter.sharedGroup === undefined
  }

  /** @returns a warning, the first time */
  sent(protocolVersion: 4 | 5): string | undefined {
    this.status = 'sent'
    this.sentOptions = this.options
    if (this.atBroker === 'no') this.atBroker = 'maybe'
    if (protocolVersion === 5 || this.filter.sharedGroup === undefined || this.isShareDoubted)
      return undefined
    this.isShareDoubted = true
    return uncertainShare(this.filter)
  }

  /** @returns whether the filter had been refused, which was logged */
  granted(): boolean {
    const hasRecovered = this.isRefusalLogged
    this.status = 'granted'
    this.atBroker = 'yes'
    this.refusal = undefined
    this.isRefusalLogged = false
    this.settle()
    return hasRecovered
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

/** @param isKnown whether it is known what the broker has, that is, whether there is a connection */
export function countsOf(
  all: readonly Subscription[],
  isKnown: boolean,
  unsubscribesRefused: number,
): SubscriptionCounters {
  const granted = isKnown ? all.filter(entry => entry.status === 'granted').length : 0
  const refused = all.filter(entry => entry.status === 'refused').length
  return { granted, refused, pending: all.length - granted - refused, unsubscribesRefused }
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

const FAILURE = 0x80
const ignore = (): void => {}

/** A filter to be unsubscribed. */
class Unsubscription {
  /** Subscribed again after the UNSUBSCRIBE that waits for its UNSUBACK. */
  isWantedAgain = false
  resolve: () => void = ignore
  reject: (failure: MqttError) => void = ignore
  readonly confirmed = new Promise<void>((resolve, reject) => {
    this.resolve = resolve
    this.reject = reject
  })

  constructor(readonly subscription: string) {
    // Most callers do not await it.
    this.confirmed.catch(ignore)
  }
}

/** Filters to be unsubscribed, until the broker has confirmed it. */
export class Unsubscriptions {
  private readonly unsent = new Map<string, Unsubscription>()
  private readonly inFlight: AwaitedResponses<readonly Unsubscription[]>
  private current: { readonly link: Link; readonly limits: BrokerLimits } | undefined
  private refusals = 0
  private readonly idle = new IdleWaiters(() => this.inFlight.size === 0)

  constructor(
    private readonly packetIds: PacketIds,
    rules: AckRules,
    private readonly notice: Hook<Notice>,
  ) {
    this.inFlight = new AwaitedResponses(
      packetIds,
      rules,
      ([first]) => `UNSUBSCRIBE of "${first?.subscription}"`,
    )
  }

  /** Number of filters for which the broker refused UNSUBSCRIBE. */
  get refused(): number {
    return this.refusals
  }

  connected(link: Link, limits: BrokerLimits): void {
    this.current = { link, limits }
    this.inFlight.connected(link)
  }

  /** @returns a promise that resolves when the broker has removed the filter, and rejects if it refuses */
  add(subscription: string): Promise<void> {
    const known = this.unsent.get(subscription)
    if (known !== undefined) return known.confirmed
    const added = new Unsubscription(subscription)
    this.unsent.set(subscription, added)
    return added.confirmed
  }

  /** The filter is subscribed again. @returns whether the broker may still have it */
  remove(subscription: string): boolean {
    this.unsent.get(subscription)?.resolve()
    const isUnsent = this.unsent.delete(subscription)
    const sent = this.inFlight.contents.flat().filter(entry => entry.subscription === subscription)
    // A repeated UNSUBSCRIBE must not undo the SUBSCRIBE that follows.
    for (const entry of sent) entry.isWantedAgain = true
    return isUnsent || sent.length > 0
  }

  /** Sends the filters that are not sent yet. */
  flush(): void {
    if (this.current === undefined || this.unsent.size === 0) return
    const { link, limits } = this.current
    for (const unsubscriptions of batches([...this.unsent.keys()], limits.maximumPacketSize)) {
      const messageId = this.packetIds.allocate()
      if (messageId === undefined) return
      const entries = unsubscriptions.flatMap(subscription => this.unsent.get(subscription) ?? [])
      for (const subscription of unsubscriptions) this.unsent.delete(subscription)
      this.inFlight.sent(messageId, entries)
      link.send({ cmd: 'unsubscribe', messageId, unsubscriptions })
    }
  }

  /** UNSUBACK arrived. */
  responded({ messageId, granted }: Extract<Packet, { cmd: 'unsuback' }>): void {
    const entries = this.inFlight.responded(messageId)
    if (entries === undefined) return
    for (const [index, entry] of entries.entries()) {
      // MQTT 3.1.1 has no Reason Codes here.
      const code = granted?.[index] ?? 0
      if (code < FAILURE) entry.resolve()
      else this.refuse(entry, code)
    }
    this.idle.check()
  }

  /** Resolves when the broker has responded to every UNSUBSCRIBE, or the connection is lost. */
  whenSettled(): Promise<void> {
    return this.idle.wait()
  }

  /** @param isKept whether the broker may still have the filters at the next connection */
  lost(isKept: boolean): void {
    this.current = undefined
    for (const entry of this.inFlight.lost().flat()) {
      if (isKept && !entry.isWantedAgain) this.unsent.set(entry.subscription, entry)
      else entry.resolve()
    }
    this.idle.check()
  }

  /** The broker has no session any more. */
  clear(): void {
    for (const entry of this.unsent.values()) entry.resolve()
    this.unsent.clear()
  }

  /** The connection is closed, so UNSUBSCRIBE will not be sent. */
  closed(): void {
    for (const entry of this.unsent.values()) entry.reject(closedError())
    this.unsent.clear()
  }

  private refuse(entry: Unsubscription, reasonCode: number): void {
    const text = `the broker refused UNSUBSCRIBE of "${entry.subscription}": ${describeReasonCode(reasonCode)}. It sends messages for this filter until the session ends`
    const error = new MqttError('UNSUBSCRIBE_REFUSED', text, { reasonCode })
    entry.reject(error)
    this.refusals += 1
    this.notice.emit({ type: 'subscription-warning', text })
  }
}
