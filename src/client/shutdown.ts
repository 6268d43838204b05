import type { ConnectionState } from '../core/connection/connection-state.js'
import { describeCause } from '../core/errors.js'
import type { OutboundMessage } from '../core/outbound/outbound-message.js'
import type { PublishOutcome } from '../core/outbound/publish-outcome.js'
import type { Routes } from '../core/topic/topic-trie.js'
import type { ResolvedOptions, ResolvedPresence } from '../options/resolved-options.js'
import type { ConnectionListener, MqttConnection } from './connection/mqtt-connection.js'
import type { ClientEvents } from './events.js'
import type { DeadLetters } from './inbound/dead-letters.js'
import type { InboundHandler } from './inbound/delivery.js'
import type { InboundDispatcher } from './inbound/inbound-dispatcher.js'
import type { Publisher } from './outbound/publisher.js'
import type { StoredPublishes } from './outbound/stored-publishes.js'
import type { Requester } from './requests/requester.js'
import type { SubscriptionTable } from './subscriptions/subscription-table.js'
import { settlesWithin } from './waits.js'

/** Fraction of the shutdown time that is reserved for DISCONNECT. */
const FAREWELL_SHARE = 0.2
/** Fraction of that time within which the broker must acknowledge that this client is offline. */
const PRESENCE_SHARE = 0.5
/** Fraction of the drain time within which the broker must respond to UNSUBSCRIBE. */
const UNSUBSCRIBE_SHARE = 0.5
/** Fraction of the remaining time within which streams of responses may end by themselves. */
const STREAMS_SHARE = 0.8
const NEVER = new Promise<never>(() => {})

/** The parts of a session that are shut down. */
interface EndingSession {
  readonly options: Pick<ResolvedOptions, 'drainTimeoutMs' | 'keepsSession'>
  readonly connection: MqttConnection
  readonly subscriptions: SubscriptionTable
  readonly routes: Routes<InboundHandler>
  readonly dispatcher: InboundDispatcher
  readonly publisher: Publisher
  readonly stored: StoredPublishes | undefined
  readonly requester: Requester
  readonly deadLetters: DeadLetters
  readonly events: ClientEvents
  readonly presence: Presence | undefined
}

/** Ends a session in order: the intake, the handlers, the publishes, and finally the connection. */
export class Shutdown {
  private readonly listeners = new Set<() => void>()
  private drained: Promise<void> | undefined
  private closed: Promise<void> | undefined
  /** What the drain has left of its time, for publishes after it. */
  private unusedDrainMs = 0
  private deadline: NodeJS.Timeout | undefined
  private isOverdue = false
  private isStartAbandoned = false
  private starts = 0

  constructor(private readonly session: EndingSession) {
    // The connection may also stop for good by itself.
    const stateChanged = ({ status }: ConnectionState) => (status === 'closed' ? this.endIntake() : undefined)
    session.connection.attach({ stateChanged })
  }

  /** Adds a listener for the end of the intake: a drain, or the end of the connection. @returns a function that removes it */
  onIntakeEnd(work: () => void): () => void {
    // Callers receive the function that removes the listener before the listener is called.
    if (this.drained !== undefined) queueMicrotask(work)
    else this.listeners.add(work)
    return () => this.listeners.delete(work)
  }

  drain(): Promise<void> {
    this.drained ??= this.drainWithin(this.session.options.drainTimeoutMs * (1 - FAREWELL_SHARE))
    return this.drained
  }

  /**
   * Drains, and closes after the drain time unless the application has closed by then. Nest closes HTTP in between, and
   * waits for HTTP handlers, which may wait for a publish that never settles.
   */
  async begin(): Promise<void> {
    await this.drain()
    if (this.closed !== undefined) return
    clearTimeout(this.deadline)
    this.deadline = setTimeout(() => {
      this.isOverdue = true
      void this.close()
    }, this.unusedDrainMs)
  }

  close(): Promise<void> {
    clearTimeout(this.deadline)
    this.closed ??= this.drain().then(() => this.end())
    return this.closed
  }

  /** The intake has ended. */
  get isDraining(): boolean {
    return this.drained !== undefined
  }

  /** The application has called `close`. */
  get isClosed(): boolean {
    return this.closed !== undefined
  }

  /** A start that has not ended by now never settles, so that no later code of the application runs. */
  abandonStart(): void {
    this.isStartAbandoned = true
    // Nest may wait for the start before it closes anything.
    if (this.starts > 0 && this.session.connection.state.status !== 'connected') void this.close()
  }

  async unlessAbandoned(start: () => Promise<void>): Promise<void> {
    if (this.isStartAbandoned) return NEVER
    this.starts += 1
    try {
      await start()
    } catch (error) {
      if (!this.isStartAbandoned) throw error
    } finally {
      this.starts -= 1
    }
    if (this.isStartAbandoned) return NEVER
  }

  private async drainWithin(timeoutMs: number): Promise<void> {
    const { options, subscriptions, dispatcher, publisher, stored, requester } = this.session
    const { deadLetters, routes } = this.session
    // Handlers that should end may wait for messages of these subscriptions.
    const isInternal = (subscription: string) => routes.of(subscription).some(handler => handler.isInternal)
    const deadline = performance.now() + timeoutMs
    this.endIntake()
    const within = (work: Promise<unknown>, share = 1) =>
      settlesWithin(work, Math.max(0, (deadline - performance.now()) * share))
    // A persistent session must keep its subscriptions, so that the broker stores messages for it.
    if (options.keepsSession) subscriptions.end(isInternal)
    else await within(subscriptions.unsubscribeAll(isInternal), UNSUBSCRIBE_SHARE)
    const handlersEnded = await within(dispatcher.drain())
    const streams = await requester.streams.drain(idle => within(idle, STREAMS_SHARE))
    stored?.drain()
    const publishesSettled = await within(publisher.whenIdle())
    if (stored !== undefined) await within(stored.whenIdle())
    deadLetters.stop()
    this.unusedDrainMs = Math.max(0, deadline - performance.now())
    if (handlersEnded && publishesSettled && streams === 0) return
    this.noteGivenUp(timeoutMs, streams)
    dispatcher.stop()
  }

  private endIntake(): void {
    for (const work of [...this.listeners]) work()
  }

  /** Publishes since the drain also settle, within the time that the drain has left. */
  private async end(): Promise<void> {
    const { connection, dispatcher, publisher, stored, presence, options } = this.session
    const leftMs = this.unusedDrainMs
    if (publisher.isWaiting && leftMs > 0) {
      const isSettled = !this.isOverdue && (await settlesWithin(publisher.whenIdle(), leftMs))
      if (!isSettled) this.noteGivenUp(leftMs)
    }
    dispatcher.stop()
    const farewellMs = options.drainTimeoutMs * FAREWELL_SHARE
    const keepsWill = presence !== undefined && !(await presence.leave(farewellMs * PRESENCE_SHARE))
    publisher.close()
    const closed = connection.close(farewellMs * (keepsWill ? 1 - PRESENCE_SHARE : 1), keepsWill)
    // What was not acknowledged is stored now.
    await Promise.all([closed, stored?.close(farewellMs)])
    dispatcher.end()
  }

  private noteGivenUp(afterMs: number, streams = 0): void {
    const { dispatcher, publisher, events } = this.session
    const { running, waiting } = dispatcher.counters
    const { inFlight, queued } = publisher.counters
    const left = { running, waiting, streams, unacknowledged: inFlight, queued }
    events.notice.emit({ type: 'shutdown-gave-up', afterMs, left })
  }
}

const RETAIN_NOT_SUPPORTED = 0x9a
const QOS_NOT_SUPPORTED = 0x9b

/** The parts of a session that presence needs. */
interface PresentSession {
  readonly connection: MqttConnection
  readonly publisher: Publisher
  readonly events: ClientEvents
}

/**
 * Maintains the retained message that shows whether this client is online. If the client does not end cleanly, the broker
 * publishes the will, which has the same payload as `offline`.
 */
export class Presence implements ConnectionListener {
  private hasLeft = false
  private isWarned = false

  constructor(
    private readonly messages: ResolvedPresence,
    private readonly session: PresentSession,
  ) {}

  /** Publishes `online`. Called for each new connection, before all other publishes. */
  greet(): void {
    if (this.hasLeft) return
    try {
      const { events, publisher } = this.session
      const message = this.message(this.messages.online)
      if (events.publish.hasListeners) return this.greetObserved(message)
      publisher.publishFirst(message)
      this.isWarned = false
    } catch (error) {
      this.warn(describeCause(error))
    }
  }

  private greetObserved(message: OutboundMessage): void {
    const { events, publisher } = this.session
    const publish = (sent: OutboundMessage) =>
      new Promise<PublishOutcome>(settle => publisher.publishFirst(sent, settle))
    events.publishing(message, 'presence', publish).then(
      () => {
        this.isWarned = false
      },
      error => this.warn(describeCause(error)),
    )
  }

  /**
   * Publishes `offline`.
   * @returns whether the broker has acknowledged it. If not, the connection must be closed so that the broker publishes the will.
   */
  async leave(timeoutMs: number): Promise<boolean> {
    this.hasLeft = true
    const { connection, publisher, events } = this.session
    if (connection.state.status !== 'connected' || timeoutMs < 1) return false
    try {
      const terms = { whenBlocked: 'wait', timeoutMs: Math.ceil(timeoutMs) } as const
      const message = this.message(this.messages.offline)
      const publish = (sent: OutboundMessage) => publisher.publish(sent, terms)
      const { status } = await (events.publish.hasListeners
        ? events.publishing(message, 'presence', publish)
        : publish(message))
      return status === 'acknowledged' || status === 'sent'
    } catch {
      // The broker does not support retained messages, which `greet` has reported.
      return false
    }
  }

  stateChanged(state: ConnectionState): void {
    const reasonCode = 'cause' in state ? state.cause?.reasonCode : undefined
    if (reasonCode === RETAIN_NOT_SUPPORTED || reasonCode === QOS_NOT_SUPPORTED)
      this.warn('the broker refused the will, which is retained and has QoS 1')
  }

  private message(payload: Buffer): OutboundMessage {
    const qos = this.session.connection.limits?.maximumQoS === 0 ? 0 : 1
    return { topic: this.messages.topic, payload, qos, retain: true }
  }

  private warn(why: string): void {
    if (this.isWarned) return
    this.isWarned = true
    const text = `the presence of this client is not announced on "${this.messages.topic}": ${why}. Enable retained messages on the broker, or remove the option "presence"`
    this.session.events.notice.emit({ type: 'presence-failed', text })
  }
}
