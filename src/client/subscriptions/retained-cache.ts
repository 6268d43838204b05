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
import type { Subscription } from './subscription-entries.js'

/** Interval of the checks while the application is starting, because messages are held until then. */
const STARTING_PAUSE_MS = 20
/** Interval of further PINGREQ packets, in case a PINGRESP is lost. */
const PING_AGAIN_MS = 5_000

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
  /** Subscription Identifier of the retained messages that are sent again for this cache. */
  private readonly identifier: number

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
    this.identifier = session.identifiers.assign(topicFilter)
    this.leave = [
      session.connection.attach({
        // After a resumed session, no SUBSCRIBE is sent that would bring the retained messages.
        connected: () => this.synchronise(session.subscriptions.entryOf(this.filter)?.status !== 'granted'),
        lost: () => this.pause(),
        stateChanged: ({ status }) => (status === 'closed' ? this.end() : undefined),
      }),
      session.events.notice.listen(notice => {
        if (notice.type !== 'subscription-recovered' || notice.subscription !== this.filter) return
        this.synchronise(true, true)
      }),
      session.shutdown.onDrain(() => this.end()),
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
    const { topic, payload } = packet
    if (this.isClosed || !this.isRetained(packet)) return
    if (payload.length === 0) return this.report(this.values.remove(topic, 'cleared'))
    const { sync } = this.values
    this.decoding += 1
    try {
      const value = await this.decode(packet)
      this.report(this.values.set(topic, value, bytesOf(packet), sync))
    } catch (error) {
      this.report(this.values.remove(topic, 'invalid'))
      throw error
    } finally {
      this.decoding -= 1
    }
  }

  /** On MQTT 3.1.1 a live message does not show whether the broker has stored it. */
  private isRetained({ retain, properties }: PublishPacket): boolean {
    if (retain || this.session.connection.protocolVersion === 4) return true
    return properties?.subscriptionIdentifier === this.identifier
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
    const { subscriptions, refreshes, resubscriptions, connection } = this.session
    await subscriptions.whenGranted(this.filter)
    if (isOver()) return false
    if (isComing) return this.settled(isOver)
    const upToId = lastHandlerId()
    // On MQTT 3.1.1, retained messages for other subscriptions must arrive first.
    if (connection.protocolVersion === 4 && !(await this.roundTrip())) return false
    if (isOver()) return false
    const hasIdentifiers = connection.limits?.subscriptionIdentifiersAvailable === true
    const identifier = hasIdentifiers ? this.identifier : undefined
    const mostKnown = hasIdentifiers || connection.protocolVersion === 4 ? upToId : 0
    const matches = (topic: string): boolean => matchesTopicFilter(this.topicFilter, topic)
    const refresh = new Refresh(identifier, matches, mostKnown, this.rules.maxTopics)
    refreshes.add(refresh)
    try {
      await resubscriptions.request(this.filter, identifier)
      return !isOver() && (await this.settled(isOver))
    } finally {
      refreshes.delete(refresh)
    }
  }

  /** Waits for a round trip without a new topic, because the broker may send the retained messages in portions. */
  private async settled(isOver: () => boolean): Promise<boolean> {
    const { quietMs } = this.rules
    for (;;) {
      const { found } = this.values
      if (!(await this.roundTrip()) || isOver()) return false
      if (this.values.found === found && quietMs > 0) await pause(quietMs)
      if (isOver()) return false
      const isStarting = !this.session.dispatcher.hasStarted
      if (isStarting || this.decoding > 0) await pause(STARTING_PAUSE_MS)
      else if (this.values.found === found) return true
    }
  }

  /** Resolves with PINGRESP, or with false if the connection ends. The broker has then sent everything before it. */
  private async roundTrip(): Promise<boolean> {
    const { publisher } = this.session
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
  }

  private end(): void {
    if (this.isClosed) return
    this.isClosed = true
    this.pause()
    for (const leave of this.leave) leave()
    for (const reader of this.readers) reader.end()
    this.session.retained.delete(this)
    this.session.identifiers.release(this.identifier)
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
