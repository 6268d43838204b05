import { closedError, isMqttError, type MqttError } from '../../core/errors.js'
import { bytesOf } from '../../core/inbound/open-messages.js'
import {
  Refresh,
  type Retained,
  type RetainedChange,
  RetainedValues,
} from '../../core/subscriptions/retained-values.js'
import { mergeOptions, type SubscriptionOptions } from '../../core/subscriptions/subscription-rules.js'
import { matchesTopicFilter } from '../../core/topic/topic-filter.js'
import type { ResolvedRetained } from '../../options/client-options.js'
import type { PublishPacket } from '../connection/link.js'
import { type InboundHandler, lastHandlerId, newHandler } from '../inbound/delivery.js'
import type { MqttSession } from '../mqtt-session.js'
import { ChangeReader, type WaitOptions, waitFor } from '../waits.js'
import { roundTrip, SeparateCopies } from './retained-copies.js'
import type { Subscription } from './subscription-entries.js'

/** Interval of the checks while the application is starting, because messages are held until then. */
const STARTING_PAUSE_MS = 20

/** Keeps the values of one filter, and synchronises them with the broker on every connection. */
export class RetainedCache<T> implements Retained<T> {
  readonly filter: string
  isComplete = false
  private readonly values: RetainedValues<T>
  private readonly handler: InboundHandler
  private readonly readers = new Set<ChangeReader<RetainedChange<T>>>()
  private readonly waiters = new Set<(failure?: MqttError) => void>()
  /** The running synchronisation. An older one ends when it finds another one here. */
  private running: object | undefined
  private refusal: MqttError | undefined
  private isClosed = false
  /** Messages that are being decoded and validated. */
  private decoding = 0
  private readonly leave: (() => void)[]
  private readonly removeRoute: () => Promise<void>
  private readonly copies: SeparateCopies
  /** Number of messages with the RETAIN flag. */
  private flagged = 0

  constructor(
    private readonly session: MqttSession,
    private readonly topicFilter: Parameters<MqttSession['addRoute']>[0],
    private readonly rules: Omit<ResolvedRetained, 'codec'>,
    private readonly decode: (packet: PublishPacket) => T | Promise<T>,
  ) {
    this.filter = topicFilter.subscription
    this.values = new RetainedValues(rules)
    this.handler = this.newHandler()
    session.refreshes.addReceiver(this.handler)
    const { options, isUnsent } = joined(session.subscriptions.entryOf(this.filter), rules.qos)
    this.removeRoute = session.addRoute(topicFilter, options, this.handler)
    this.copies = new SeparateCopies(session, topicFilter, this.handler)
    this.leave = [
      session.connection.attach({
        // After a resumed session, no SUBSCRIBE is sent that would bring the retained messages.
        connected: () => this.synchronise(session.subscriptions.entryOf(this.filter)?.status !== 'granted'),
        lost: () => this.pause(),
      }),
      session.events.notice.listen(notice => {
        if (notice.type !== 'subscription-recovered' || notice.subscription !== this.filter) return
        this.synchronise(true, true)
      }),
      session.shutdown.onIntakeEnd(() => this.end()),
    ]
    session.retained.add(this)
    if (session.connection.state.status === 'connected') this.synchronise(isUnsent)
    session.subscriptions.flush()
  }

  get size(): number {
    return this.values.size
  }

  get bytes(): number {
    return this.values.bytes
  }

  get dropped(): number {
    return this.values.dropped
  }

  get(topic: string): T | undefined {
    return this.values.get(topic)
  }

  has(topic: string): boolean {
    return this.values.has(topic)
  }

  entries(): IterableIterator<[topic: string, value: T]> {
    return this.values[Symbol.iterator]()
  }

  changes(): AsyncIterableIterator<RetainedChange<T>> {
    const reader = new ChangeReader<RetainedChange<T>>(this.rules.maxTopics, () =>
      this.readers.delete(reader),
    )
    if (this.isClosed) reader.end()
    else this.readers.add(reader)
    return reader
  }

  whenComplete(wait: WaitOptions = {}): Promise<void> {
    return waitFor(`complete set of retained messages of "${this.filter}"`, wait, settle => {
      this.waiters.add(settle)
      if (this.isComplete) settle()
      else if (this.refusal !== undefined) settle(this.refusal)
      else if (this.isClosed) settle(closedError())
      return () => this.waiters.delete(settle)
    })
  }

  close(): Promise<void> {
    this.end()
    return this.removeRoute()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    void this.close()
  }

  private newHandler(): InboundHandler {
    return newHandler({
      name: this.filter,
      // Occupies no slot.
      isPassive: true,
      isOpenEnded: ['#', '+'].includes(this.topicFilter.levels.at(-1) ?? ''),
      run: packet => this.take(packet),
      onFailed: ({ topic }, error) =>
        this.session.events.notice.emit({ type: 'handler-failed', pattern: this.filter, topic, error }),
    })
  }

  private async take(packet: PublishPacket): Promise<void> {
    const { topic, payload, retain } = packet
    const isCopy = this.copies.haveBrought(packet)
    if (this.isClosed || !this.isRetained(packet)) return
    if (isCopy && !this.values.isNewCopy(topic)) return
    if (payload.length === 0) return this.report(this.values.remove(topic, 'cleared'))
    const isLive = this.isVersion4 ? !retain : !isCopy && this.copies.areComing
    const { sync } = this.values
    this.decoding += 1
    try {
      const value = await this.decode(packet)
      this.report(this.values.set(topic, value, bytesOf(packet), !isLive, sync))
    } catch (error) {
      this.report(this.values.remove(topic, 'invalid'))
      throw error
    } finally {
      this.decoding -= 1
    }
  }

  /** On MQTT 3.1.1 a live message does not show whether the broker has stored it. */
  private isRetained({ topic, retain, properties }: PublishPacket): boolean {
    if (!matchesTopicFilter(this.topicFilter, topic)) return false
    if (retain) this.flagged += 1
    return retain || this.isVersion4 || this.copies.obscure(properties?.subscriptionIdentifier)
  }

  private get isVersion4(): boolean {
    return this.session.connection.protocolVersion === 4
  }

  private report(changes: readonly RetainedChange<T>[]): void {
    for (const change of changes) for (const reader of this.readers) reader.add(change)
  }

  /**
   * @param isComing a SUBSCRIBE that brings the retained messages is sent anyway
   * @param hasBegun some of them may have arrived since the broker refused the filter
   */
  private synchronise(isComing: boolean, hasBegun = false): void {
    if (this.isClosed) return
    const running = {}
    this.running = running
    this.isComplete = false
    this.refusal = undefined
    void this.copies.unsubscribe()
    if (!hasBegun) this.values.begin()
    this.run(isComing, () => this.running !== running).then(
      isDone => {
        if (isDone) this.complete()
      },
      (error: unknown) => {
        if (this.running === running) this.fail(error)
      },
    )
  }

  /** @returns false if the connection ended or another synchronisation replaced it */
  private async run(isComing: boolean, isOver: () => boolean): Promise<boolean> {
    const { subscriptions, routes, refreshes } = this.session
    await subscriptions.whenGranted(this.filter)
    if (isOver()) return false
    if (isComing) return this.settled(isOver)
    if (this.isVersion4) return this.refreshed(isOver)
    const hasOthers = routes.of(this.filter).some(handler => !refreshes.isReceiver(handler))
    if (hasOthers && (await this.copies.subscribe())) {
      const isSettled = await this.settled(() => isOver() || !this.copies.isSuitable)
      // Otherwise the filters are those of another synchronisation.
      if (!isOver()) void this.copies.unsubscribe()
      if (isSettled) return true
    }
    return !isOver() && this.again(isOver)
  }

  /** The broker sends the retained messages again, on MQTT 3.1.1. */
  private async refreshed(isOver: () => boolean): Promise<boolean> {
    const upToId = lastHandlerId()
    // Those for other subscriptions must arrive first.
    if (!(await this.settled(isOver, () => this.flagged))) return false
    const { refreshes } = this.session
    const refresh = new Refresh(topic => matchesTopicFilter(this.topicFilter, topic), upToId)
    refreshes.add(refresh)
    try {
      return await this.again(isOver)
    } finally {
      refreshes.delete(refresh)
    }
  }

  private async again(isOver: () => boolean): Promise<boolean> {
    const { subscriptions } = this.session
    const entry = subscriptions.entryOf(this.filter)
    if (entry === undefined) return false
    await subscriptions.request(entry)
    return !isOver() && this.settled(isOver)
  }

  /** Waits for a round trip without a new topic, because the broker may send the retained messages in portions. */
  private async settled(isOver: () => boolean, count = () => this.values.found): Promise<boolean> {
    const { quietMs } = this.rules
    for (;;) {
      const before = count()
      if (!(await roundTrip(this.session)) || isOver()) return false
      if (count() === before && quietMs > 0) await pause(quietMs)
      if (isOver()) return false
      const isStarting = !this.session.dispatcher.hasStarted
      if (isStarting || this.decoding > 0) await pause(STARTING_PAUSE_MS)
      else if (count() === before) return true
    }
  }

  private complete(): void {
    this.running = undefined
    this.report(this.values.end())
    this.isComplete = true
    this.settle()
  }

  private fail(error: unknown): void {
    this.running = undefined
    if (!isMqttError(error)) return
    this.refusal = error
    // The retained messages may arrive before the SUBACK of a later attempt.
    this.values.begin()
    this.settle(error)
  }

  private pause(): void {
    this.running = undefined
    this.isComplete = false
    this.copies.interrupt()
  }

  private end(): void {
    if (this.isClosed) return
    this.isClosed = true
    this.pause()
    for (const leave of this.leave) leave()
    for (const reader of this.readers) reader.end()
    this.session.retained.delete(this)
    void this.copies.end()
    this.settle(closedError())
  }

  private settle(failure?: MqttError): void {
    for (const waiter of [...this.waiters]) waiter(failure)
  }
}

/** Adds the options of a cache to those that the handlers of its filter have, without a SUBSCRIBE. */
function joined(known: Subscription | undefined, qos: 0 | 1) {
  const own: SubscriptionOptions = { qos, noLocal: false, retainHandling: 0 }
  const options = known === undefined ? own : mergeOptions(known.options, own)
  if (known !== undefined) known.options = options
  return { options, isUnsent: known === undefined || known.status === 'unsent' }
}

const pause = (delayMs: number): Promise<void> => new Promise(resolve => void setTimeout(resolve, delayMs))
