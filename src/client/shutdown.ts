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

/** Part of the time for shutting down that is kept for DISCONNECT. */
const FAREWELL_SHARE = 0.2
/** Part of the time for draining in which the broker must respond to UNSUBSCRIBE. */
const UNSUBSCRIBE_SHARE = 0.5
/** Part of the time that is left then in which streams of responses may end by themselves. */
const STREAMS_SHARE = 0.8
const NEVER = new Promise<never>(() => {})

/** What ends with a session. */
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

/** Ends a session in order: the intake, the handlers, the publishes, and at last the connection. */
export class Shutdown {
  private readonly listeners = new Set<() => void>()
  private drained: Promise<void> | undefined
  private closed: Promise<void> | undefined
  /** Part of the time for draining that is left for what is published after it. */
  private unusedDrainMs = 0
  private deadline: NodeJS.Timeout | undefined
  private isOverdue = false
  private isStartAbandoned = false
  private starts = 0

  constructor(private readonly session: EndingSession) {}

  /** Told when the intake ends. @returns what ends this */
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
   * Drains, and closes when the time for draining is over, if nobody has done so by then: Nest closes HTTP in between, and
   * waits for handlers which may wait for a publish that never settles.
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

  /** The application has called `close`. */
  get isClosed(): boolean {
    return this.closed !== undefined
  }

  /** A start that has not ended by now never ends: what the application does behind it is not to happen. */
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
    // Handlers that are to end may wait for what comes by these.
    const isInternal = (subscription: string) => routes.of(subscription).some(handler => handler.isInternal)
    const deadline = performance.now() + timeoutMs
    for (const work of [...this.listeners]) work()
    const within = (work: Promise<unknown>, share = 1) =>
      settlesWithin(work, Math.max(0, (deadline - performance.now()) * share))
    // A kept session must keep its subscriptions: the broker collects messages for it meanwhile.
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

  /** What was published since the drain settles too, in the time that the drain left. */
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
