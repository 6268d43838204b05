import {
  type ConnectedSession,
  type ConnectionState,
  isReplaced,
} from '../core/connection/connection-state.js'
import { closedError, describeCause, type MqttError } from '../core/errors.js'
import { HeldBytes } from '../core/inbound/open-messages.js'
import type { SessionLog } from '../core/log-lines.js'
import type { OutboundMessage, Publication, PublishTerms } from '../core/outbound/outbound-message.js'
import type { PublishOutcome, TryPublishOutcome } from '../core/outbound/publish-outcome.js'
import { MAX_PACKET_ID, PacketIds } from '../core/protocol/packets.js'
import { ResponseTopics } from '../core/requests/request-rules.js'
import { Refreshes, totalOf } from '../core/subscriptions/retained-values.js'
import {
  SubscriptionIdentifiers,
  type SubscriptionOptions,
  type SubscriptionRules,
} from '../core/subscriptions/subscription-rules.js'
import type { TopicFilter } from '../core/topic/topic-filter.js'
import { Routes } from '../core/topic/topic-trie.js'
import type { WhenBlocked } from '../options/options.js'
import type { ResolvedOptions } from '../options/resolved-options.js'
import { createDialler } from './connection/dialler.js'
import type { Dialler } from './connection/link.js'
import { MqttConnection } from './connection/mqtt-connection.js'
import { CredentialRenewal } from './credential-renewal.js'
import { ClientEvents, type PublishPurpose } from './events.js'
import { DeadLetters } from './inbound/dead-letters.js'
import type { InboundHandler } from './inbound/delivery.js'
import { InboundDispatcher } from './inbound/inbound-dispatcher.js'
import { GuardedLog, Journal } from './journal.js'
import { Publisher } from './outbound/publisher.js'
import { publishStored } from './outbound/store-ledger.js'
import { StoredPublishes } from './outbound/stored-publishes.js'
import { ClientView, healthOf, type MqttHealth, type MqttStats, NO_REQUESTS, RecentDrops } from './report.js'
import { Requester } from './requests/requester.js'
import { Presence, Shutdown } from './shutdown.js'
import { SubscriptionTable } from './subscriptions/subscription-table.js'
import { failStart, hasClosed, whenSubscribed } from './waits.js'

/** An MQTT session of this application: the connection, its subscriptions, and its incoming and outgoing messages. */
export class MqttSession {
  readonly connection: MqttConnection
  /** Topics of responses, which wildcard handlers must not receive as events. */
  readonly responseTopics: ResponseTopics
  readonly identifiers = new SubscriptionIdentifiers()
  readonly subscriptions: SubscriptionTable
  readonly refreshes = new Refreshes<InboundHandler>()
  /** The caches of retained messages. */
  readonly retained = new Set<{ readonly size: number; readonly bytes: number; readonly dropped: number }>()
  readonly publisher: Publisher
  readonly stored: StoredPublishes | undefined
  readonly dispatcher: InboundDispatcher
  readonly log: SessionLog
  readonly events: ClientEvents
  readonly routes = new Routes<InboundHandler>()
  /** The first refused subscription since the start. */
  private refused: MqttError | undefined
  private readonly counted = { connects: 0, losses: 0, ackTimeouts: 0, sessionsLost: 0 }
  private connectedAtMs = 0
  private isStarting = false
  private hasStarted = false
  private readonly recentDrops = new RecentDrops()
  private createdRequester: Requester | undefined
  private createdDeadLetters: DeadLetters | undefined
  readonly shutdown: Shutdown
  readonly renewal = new CredentialRenewal(this)
  readonly presence: Presence | undefined

  constructor(
    readonly options: ResolvedOptions,
    log: SessionLog,
    dialler: Dialler = createDialler(options),
  ) {
    this.log = new GuardedLog(log)
    const failed = (error: unknown) =>
      this.log.error(`a listener of the client failed: ${describeCause(error)}`)
    this.events = new ClientEvents(new ClientView(this), failed)
    this.events.notice.listen(new Journal(this.log, options).write)
    this.events.notice.listen(this.recentDrops.note)
    const packetIds = new PacketIds<Publication>(Math.floor(Math.random() * MAX_PACKET_ID))
    this.connection = new MqttConnection(options, dialler, failed)
    const rules = this.subscriptionRules()
    this.subscriptions = new SubscriptionTable(packetIds, this.identifiers, rules, this.events.notice)
    this.presence = options.presence && new Presence(options.presence, this)
    this.publisher = new Publisher(packetIds, options.outbound, options.keepsSession, {
      connection: this.connection,
      subscriptions: this.subscriptions,
      events: this.events,
      presence: this.presence,
    })
    this.stored = options.storing && new StoredPublishes(options.storing, this)
    this.dispatcher = new InboundDispatcher(
      this,
      new HeldBytes(options.inbound.maxQueuedBytes, dialler.unreleased),
    )
    this.responseTopics = new ResponseTopics(options.requests.responseTopicPrefix)
    if (options.requests.responseQos > 0) this.dispatcher.pool.trackRequests()
    this.shutdown = new Shutdown(this)
    // SUBSCRIBE is sent before waiting publishes, because this client would otherwise miss its own messages.
    const parts = [this.subscriptions, this.dispatcher, this.publisher, this.presence, this.renewal]
    for (const part of parts) if (part !== undefined) this.connection.attach(part)
    this.connection.attach({
      connected: (_link, session) => this.noteConnected(session),
      noticed: cause => this.events.notice.emit({ type: 'failure-while-ending', cause }),
      warned: text => this.events.notice.emit({ type: 'connection-warning', text }),
      stateChanged: (state, before) => this.noteState(state, before),
    })
  }

  /** Sends requests on this connection. Created with the first one, because many clients send none. */
  get requester(): Requester {
    this.createdRequester ??= new Requester(this, this.options)
    return this.createdRequester
  }

  /** Created with the first dead letter, because most clients send none. */
  get deadLetters(): DeadLetters {
    this.createdDeadLetters ??= new DeadLetters({
      publish: async letter => this.publish(letter, { whenBlocked: 'wait' }, 'dead-letter'),
      version: () => this.connection.protocolVersion,
      maximumQoS: () => this.connection.limits?.maximumQoS ?? 2,
      notice: this.events.notice,
      held: this.dispatcher.messages.held,
    })
    return this.createdDeadLetters
  }

  private subscriptionRules(): SubscriptionRules {
    const { keepsSession, outbound, reconnect } = this.options
    return {
      keepsSession,
      onRestored: () => this.publisher.flushed(),
      onRefused: error => this.noteRefused(error),
      retryDelay: reconnect.delayMs,
      ackTimeoutMs: outbound.ackTimeoutMs,
      onOverdue: cause => this.connection.terminate(cause),
    }
  }

  /** Whether this client waits for a response from the broker. */
  get awaitsResponses(): boolean {
    return this.publisher.isWaiting || (this.createdRequester?.counters.open ?? 0) > 0
  }

  get stats(): MqttStats {
    return {
      inbound: this.dispatcher.counters,
      outbound: this.publisher.counters,
      store: this.stored?.ledger.stats,
      requests: this.createdRequester?.counters ?? NO_REQUESTS,
      subscriptions: this.subscriptions.counts,
      retained: totalOf([...this.retained]),
      connection: { ...this.counted },
    }
  }

  get health(): MqttHealth {
    const { subscriptions, publisher } = this
    const { refusal } = publisher.outcomes
    this.noteStarted()
    return healthOf({
      connection: this.connection.state,
      refusedSubscriptions: subscriptions.refused,
      unansweredSubscriptions: subscriptions.unanswered,
      refusedPublish: refusal && { reasonCode: refusal.reasonCode, ageMs: performance.now() - refusal.atMs },
      isAcknowledgementLate: publisher.inFlight.isLate,
      heldUp: this.dispatcher.watch.heldUp,
      dropped: this.recentDrops.counts,
      storeProblems: this.stored?.ledger.problems ?? [],
      hasStarted: this.hasStarted,
      isDraining: this.shutdown.isDraining || this.connection.state.status === 'closed',
    })
  }

  /** Connects. `fail-fast`: rejects if the first round of attempts fails. Repeated calls share one connection. */
  start(): Promise<void> {
    return this.shutdown.unlessAbandoned(() => this.open())
  }

  private async open(): Promise<void> {
    if (this.shutdown.isClosed) throw hasClosed()
    this.isStarting = true
    try {
      await this.stored?.open()
      await this.connection.open().catch(error => failStart(error, this.stored))
    } finally {
      this.isStarting = false
    }
  }

  /** Adds a route, which `subscriptions.flush` or `listen` sends. @returns a function that removes it */
  addRoute(filter: TopicFilter, options: SubscriptionOptions, handler: InboundHandler): () => Promise<void> {
    this.routes.add(filter, handler)
    this.subscriptions.add(filter, options)
    let removed: Promise<void> | undefined
    return () => {
      removed ??= this.routes.remove(filter, handler)
        ? this.subscriptions.remove(filter.subscription)
        : Promise.resolve()
      return removed
    }
  }

  /** Subscribes all routes and starts the handlers. `fail-fast`: closes and rejects on a refusal or a lost connection. */
  listen(): Promise<void> {
    return this.shutdown.unlessAbandoned(() => this.openAndSubscribe())
  }

  private async openAndSubscribe(): Promise<void> {
    await this.open()
    this.dispatcher.start()
    this.subscriptions.flush()
    void this.subscriptions.whenSettled().then(() => this.noteStarted())
    if (this.options.connect === 'background') return
    const lost = await whenSubscribed(this.connection, this.subscriptions, this.options.connectTimeoutMs)
    const failure = lost ?? (this.options.refusedSubscription === 'fail' ? this.refused : undefined)
    if (failure === undefined) return
    await this.close()
    throw failure
  }

  publish(
    message: OutboundMessage,
    terms?: PublishTerms,
    purpose: PublishPurpose = 'message',
  ): Promise<PublishOutcome> {
    const { events, publisher, options } = this
    const mode = terms?.whenBlocked ?? options.outbound.whenBlocked
    if (mode === 'store' && purpose === 'message') return publishStored(this, message, terms)
    if (!events.publish.hasListeners) return publisher.publish(message, terms)
    return events.publishing(message, purpose, observed => publisher.publish(observed, terms))
  }

  tryPublish(message: OutboundMessage, whenBlocked?: WhenBlocked): TryPublishOutcome {
    const { events, publisher } = this
    if (!events.publish.hasListeners) return publisher.tryPublish(message, whenBlocked)
    return events.tryPublishing(message, (observed, settle) =>
      publisher.tryPublish(observed, whenBlocked, settle),
    )
  }

  /** Stops the intake and waits for handlers, acknowledgements and publishes. Publishing and requests still work. */
  drain(): Promise<void> {
    return this.shutdown.drain()
  }

  /** Drains, waits for later publishes to settle, and sends DISCONNECT, all within `drainTimeoutMs`. */
  close(): Promise<void> {
    return this.shutdown.close()
  }

  private noteRefused(error: MqttError): void {
    this.refused ??= error
    this.events.notice.emit({ type: 'subscription-refused', error })
  }

  private noteLoss(state: ConnectionState): void {
    this.counted.losses += 1
    if ('cause' in state && state.cause?.code === 'TIMEOUT') this.counted.ackTimeouts += 1
    const isShort = performance.now() - this.connectedAtMs < this.options.reconnect.resetAfterMs
    this.events.notice.emit({ type: 'connection-lost', wasShort: isShort })
  }

  /** Remembers that the client was connected with every subscription granted. */
  private noteStarted(): void {
    if (this.hasStarted || !this.dispatcher.hasStarted || this.connection.state.status !== 'connected') return
    const { pending, refused } = this.subscriptions.counts
    this.hasStarted = pending === 0 && (refused === 0 || this.options.refusedSubscription === 'warn')
  }

  private noteConnected(session: ConnectedSession): void {
    this.counted.connects += 1
    if (!this.hasStarted) void this.subscriptions.whenSettled().then(() => this.noteStarted())
    this.connectedAtMs = performance.now()
    if (!this.options.keepsSession || session.sessionPresent || this.counted.connects === 1) return
    this.counted.sessionsLost += 1
    this.events.notice.emit({ type: 'session-lost' })
  }

  private noteState(state: ConnectionState, before: ConnectionState): void {
    const { notice } = this.events
    // Without a cause this connection is replaced by the next one, on which responses still arrive.
    const ended = 'cause' in state ? state.cause : undefined
    if (state.status === 'closed' || ended !== undefined) this.createdRequester?.lost(ended ?? closedError())
    this.events.connectionChanged(state, before)
    const cause = state.status === 'closed' ? state.cause : undefined
    // The promise of `start()` reports a failed start.
    const isStartFailure = cause !== undefined && this.isStarting
    if (!isStartFailure) notice.emit({ type: 'state', state, before })
    if (before.status === 'connected' && state.status !== 'closing' && !isReplaced(state, before))
      this.noteLoss(state)
    if (cause === undefined || isStartFailure) return
    try {
      this.options.onStopped?.(cause)
    } catch (error) {
      this.log.error(`onStopped failed: ${describeCause(error)}`)
    }
  }
}
