import type { Routes } from '../core/topic/topic-trie.js'
import type { ResolvedOptions } from '../options/resolved-options.js'
import type { MqttConnection } from './connection/mqtt-connection.js'
import type { ClientEvents } from './events.js'
import type { DeadLetters } from './inbound/dead-letters.js'
import type { InboundHandler } from './inbound/delivery.js'
import type { InboundDispatcher } from './inbound/inbound-dispatcher.js'
import type { Publisher } from './outbound/publisher.js'
import type { Requester } from './requests/requester.js'
import type { SubscriptionTable } from './subscriptions/subscription-table.js'
import { settlesWithin } from './waits.js'

/** Fraction of the shutdown time that is reserved for DISCONNECT. */
const FAREWELL_SHARE = 0.2
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
  readonly requester: Requester
  readonly deadLetters: DeadLetters
  readonly events: ClientEvents
}

/** Ends a session in order: the intake, the handlers, the publishes, and finally the connection. */
export class Shutdown {
  private readonly listeners = new Set<() => void>()
  private drained: Promise<void> | undefined
  private closed: Promise<void> | undefined
  /** Fraction of the drain time that remains for publishes after the drain. */
  private unusedDrainMs = 0
  private deadline: NodeJS.Timeout | undefined
  private isOverdue = false
  private isStartAbandoned = false
  private starts = 0

  constructor(private readonly session: EndingSession) {}

  /** Adds a listener for the end of the intake. @returns a function that removes it */
  onDrain(work: () => void): () => void {
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
    const { options, subscriptions, dispatcher, publisher, requester, deadLetters, routes } = this.session
    // Handlers that should end may wait for messages of these subscriptions.
    const isInternal = (subscription: string) => routes.of(subscription).some(handler => handler.isInternal)
    const deadline = performance.now() + timeoutMs
    for (const work of [...this.listeners]) work()
    const within = (work: Promise<unknown>, share = 1) =>
      settlesWithin(work, Math.max(0, (deadline - performance.now()) * share))
    // A persistent session must keep its subscriptions, so that the broker stores messages for it.
    if (options.keepsSession) subscriptions.end(isInternal)
    else await within(subscriptions.unsubscribeAll(isInternal), UNSUBSCRIBE_SHARE)
    const handlersEnded = await within(dispatcher.drain())
    const streams = await requester.streams.drain(idle => within(idle, STREAMS_SHARE))
    const publishesSettled = await within(publisher.whenIdle())
    deadLetters.stop()
    this.unusedDrainMs = Math.max(0, deadline - performance.now())
    if (handlersEnded && publishesSettled && streams === 0) return
    this.noteGivenUp(timeoutMs, streams)
    dispatcher.stop()
  }

  /** Publishes since the drain also settle, within the time that the drain has left. */
  private async end(): Promise<void> {
    const { connection, dispatcher, publisher } = this.session
    const leftMs = this.unusedDrainMs
    if (publisher.isWaiting && leftMs > 0) {
      const isSettled = !this.isOverdue && (await settlesWithin(publisher.whenIdle(), leftMs))
      if (!isSettled) this.noteGivenUp(leftMs)
    }
    dispatcher.stop()
    publisher.close()
    await connection.close(this.session.options.drainTimeoutMs * FAREWELL_SHARE)
    dispatcher.end()
  }

  private noteGivenUp(afterMs: number, streams = 0): void {
    const { dispatcher, publisher, events } = this.session
    const { running, waiting } = dispatcher.counters
    const { inFlight, queued } = publisher.counters
    const left = { running, waiting, streams, unacknowledged: inFlight, queued }
    events.notice.tell({ type: 'shutdown-gave-up', afterMs, left })
  }
}
