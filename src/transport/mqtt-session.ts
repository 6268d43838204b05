import { settlesWithin } from '../deadline.js'
import type { MqttError } from '../errors.js'
import { isPowerOfTwo } from '../log-thinning.js'
import { describeTarget } from '../option-checks.js'
import type { ResolvedOptions } from '../options.js'
import type { PublishOutcome, TryPublishOutcome } from '../publish-outcome.js'
import type { TopicFilter } from '../topic/topic-filter.js'
import { describeTransition, type LogLevel } from './connection/connection-log.js'
import type { ConnectionState } from './connection/connection-state.js'
import { createDialler, type Dialler } from './connection/mqtt-client.js'
import { MqttConnection } from './connection/mqtt-connection.js'
import { PacketIds } from './connection/packet-ids.js'
import { type SubscriptionOptions, Subscriptions } from './connection/subscriptions.js'
import { type InboundCounters, InboundDispatcher, type InboundHandler } from './inbound/inbound-dispatcher.js'
import { Routes } from './inbound/routes.js'
import { type OutboundCounters, type OutboundMessage, Publisher } from './outbound/publisher.js'

export type SessionLog = Record<LogLevel, (text: string) => void>

/** Counters of one connection since the start of the process. They add up: nothing disappears uncounted. */
export interface MqttStats {
  /** received = handled + dropped + givenBack + waiting + running */
  readonly inbound: InboundCounters
  /** attempted = sent + acknowledged + refused + lost + inFlight + every reason of dropped */
  readonly outbound: OutboundCounters
  readonly subscriptions: { readonly granted: number; readonly refused: number; readonly pending: number }
}

/** Part of the time for shutting down that is kept for DISCONNECT. */
const FAREWELL_SHARE = 0.2

/** An MQTT session of this application: the connection, what it subscribes to, what is under way in and out. */
export class MqttSession {
  readonly connection: MqttConnection
  private readonly subscriptions: Subscriptions
  private readonly publisher: Publisher
  private readonly dispatcher: InboundDispatcher
  private readonly routes = new Routes<InboundHandler>()
  private readonly refused: MqttError[] = []
  private drained: Promise<void> | undefined
  private closed: Promise<void> | undefined
  /** Whether the broker keeps subscriptions and unacknowledged messages when this connection ends. */
  private readonly keepsSession: boolean

  constructor(
    private readonly options: ResolvedOptions,
    private readonly log: SessionLog,
    dialler: Dialler = createDialler(options),
  ) {
    this.keepsSession = !options.clean && options.passThrough.properties?.sessionExpiryInterval !== 0
    const packetIds = new PacketIds()
    this.connection = new MqttConnection(options, dialler)
    this.publisher = new Publisher(packetIds, options.outbound.maxInFlight, this.keepsSession)
    this.subscriptions = new Subscriptions(packetIds, ({ error }) => this.noteRefused(error))
    this.dispatcher = new InboundDispatcher({
      ...options.inbound,
      keepsSession: this.keepsSession,
      select: packet => {
        const identifiers = packet.properties?.subscriptionIdentifier
        return this.routes.select(packet.topic, this.subscriptions.identify(packet.topic, identifiers))
      },
      onUnmatched: topic => this.noteUnmatched(topic),
      onDropped: () => this.noteDropped(),
    })
    const target = describeTarget(options)
    this.connection.attach(this.dispatcher)
    this.connection.attach(this.publisher)
    this.connection.attach(this.subscriptions)
    this.connection.attach({ stateChanged: (state, before) => this.logTransition(state, before, target) })
  }

  get stats(): MqttStats {
    return {
      inbound: this.dispatcher.counters,
      outbound: this.publisher.counters,
      subscriptions: this.subscriptions.counts,
    }
  }

  /** Connects. `fail-fast`: rejects when the first attempt fails. Calls share one connection. */
  start(): Promise<void> {
    return this.connection.open()
  }

  addRoute(filter: TopicFilter, options: SubscriptionOptions, handler: InboundHandler): void {
    this.routes.add(filter, handler)
    this.subscriptions.add(filter, options)
  }

  /**
   * Subscribes every route and lets handlers run. `fail-fast`: rejects with the first subscription that the
   * broker refuses, or with the loss of the connection before it answered, having closed the connection.
   */
  async listen(): Promise<void> {
    await this.start()
    this.dispatcher.open()
    const answered = this.whenAnswered()
    this.subscriptions.flush()
    if (this.options.connect === 'background') return
    const failure = (await answered) ?? this.refused[0]
    if (failure === undefined) return
    await this.close()
    throw failure
  }

  /** Resolves when every SUBSCRIBE is answered, or with the cause when the connection goes before that. */
  private whenAnswered(): Promise<MqttError | undefined> {
    return new Promise(resolve => {
      // Some brokers hang up on a subscription that they do not allow.
      const detach = this.connection.attach({ lost: resolve })
      void this.subscriptions.whenAnswered().then(() => {
        detach()
        resolve(undefined)
      })
    })
  }

  publish(message: OutboundMessage): PublishOutcome | Promise<PublishOutcome> {
    return this.publisher.publish(message)
  }

  tryPublish(message: OutboundMessage): TryPublishOutcome {
    return this.publisher.tryPublish(message)
  }

  /** No new work; handlers end, their acknowledgements leave, publishes settle. The connection stays open. */
  drain(): Promise<void> {
    this.drained ??= this.drainWithin(this.options.drainTimeoutMs * (1 - FAREWELL_SHARE))
    return this.drained
  }

  /** Drains, sends DISCONNECT and ends. Resolves within `drainTimeoutMs`. */
  close(): Promise<void> {
    this.closed ??= this.drain().then(() => {
      this.publisher.close()
      return this.connection.close(this.options.drainTimeoutMs * FAREWELL_SHARE)
    })
    return this.closed
  }

  private async drainWithin(timeoutMs: number): Promise<void> {
    const deadline = performance.now() + timeoutMs
    const within = (work: Promise<unknown>) => settlesWithin(work, Math.max(0, deadline - performance.now()))
    // A kept session must keep its subscriptions: the broker collects messages for it meanwhile.
    if (!this.keepsSession) await within(this.subscriptions.unsubscribeAll())
    const handlersEnded = await within(this.dispatcher.drain())
    const publishesSettled = await within(this.publisher.whenIdle())
    if (handlersEnded && publishesSettled) return
    const { inbound, outbound } = this.stats
    this.log.warn(
      `shutdown gave up after ${Math.round(timeoutMs)} ms: ${inbound.running} messages still in handlers, ${inbound.waiting} waiting for one, ${outbound.inFlight} publishes without an answer`,
    )
  }

  private noteRefused(error: MqttError): void {
    this.refused.push(error)
    this.log.error(error.message)
  }

  private noteUnmatched(topic: string): void {
    const { unmatched } = this.stats.inbound
    if (isPowerOfTwo(unmatched))
      this.log.warn(`no handler takes "${topic}"; ${unmatched} such messages so far`)
  }

  private noteDropped(): void {
    const { dropped } = this.stats.inbound
    if (!isPowerOfTwo(dropped)) return
    this.log.warn(
      `handlers are slower than QoS 0 messages come: ${dropped} dropped so far; raise inbound.concurrency or inbound.maxQueued`,
    )
  }

  private logTransition(state: ConnectionState, before: ConnectionState, target: string): void {
    const { level, text } = describeTransition(state, before, target)
    this.log[level](text)
  }
}
