import { type Channel, channel } from 'node:diagnostics_channel'
import type { ConnectionState } from '../core/connection/connection-state.js'
import type { MqttError } from '../core/errors.js'
import type { RunOutcome } from '../core/inbound/inbound-count.js'
import type { OutboundMessage } from '../core/outbound/outbound-message.js'
import type { DropReason, PublishOutcome, TryPublishOutcome } from '../core/outbound/publish-outcome.js'
import type { RequestProtocol } from '../core/requests/request-rules.js'

/** The connection has changed. */
export interface ConnectionChange {
  readonly clientId: string
  readonly state: ConnectionState
  readonly before: ConnectionState
}

/** A publish has settled. */
export interface PublishSettled {
  readonly clientId: string
  readonly topic: string
  readonly qos: 0 | 1 | 2
  readonly outcome: PublishOutcome | TryPublishOutcome
}

/** A handler starts with a message, or has finished it, including its retries and its dead letter. */
export interface DeliveryEvent {
  readonly clientId: string
  readonly type: 'start' | 'end'
  /** The same object at the start and at the end. */
  readonly key: object
  readonly pattern: string
  readonly topic: string
  readonly qos: 0 | 1 | 2
  /** Set at the end. */
  readonly outcome?: RunOutcome
}

/** A request starts, or has ended. */
export interface RequestEvent {
  readonly clientId: string
  readonly type: 'start' | 'end'
  /** The same object at the start and at the end. */
  readonly key: object
  readonly topic: string
  readonly protocol: RequestProtocol
  /** Set at the end of a failed request. */
  readonly error?: Error
}

/** One attempt of a handler. */
export interface AttemptInfo {
  readonly pattern: string
  readonly topic: string
  readonly attempt: number
}

/** Messages that hold back the acknowledgements of others. */
export interface HeldUp {
  readonly topic: string
  readonly patterns: readonly string[]
  readonly ageMs: number
  /** Number of messages that wait behind it. */
  readonly behind: number
}

/** What was unfinished when a shutdown reached its time limit. */
export interface LeftBehind {
  readonly running: number
  readonly waiting: number
  readonly streams: number
  readonly unacknowledged: number
  readonly queued: number
}

/** Events for an operator. The journal turns them into log lines. */
export type Notice =
  | {
      readonly type: 'handler-failed'
      readonly pattern: string
      readonly topic: string
      readonly error: unknown
    }
  | { readonly type: 'unmatched'; readonly topic: string }
  | { readonly type: 'inbound-dropped' }
  | { readonly type: 'acknowledgements-held-up'; readonly heldUp: HeldUp }
  | { readonly type: 'publish-dropped'; readonly reason: DropReason }
  /** Nothing was dropped for a while, and nothing waits. */
  | { readonly type: 'drops-over' }
  | {
      readonly type: 'publish-refused'
      readonly topic: string
      readonly reasonCode: number
      readonly reasonString: string | undefined
    }
  | { readonly type: 'dead-letters-downgraded'; readonly topic: string }
  | { readonly type: 'dead-letter-refused'; readonly topic: string; readonly why: string }
  | { readonly type: 'dead-letter-without-subscriber'; readonly topic: string }
  | { readonly type: 'response-not-delivered'; readonly topic: string; readonly why: string }
  | { readonly type: 'stream-evicted'; readonly topic: string }
  | { readonly type: 'subscription-refused'; readonly error: MqttError }
  | { readonly type: 'subscription-recovered'; readonly subscription: string }
  | { readonly type: 'subscription-warning'; readonly text: string }
  | { readonly type: 'presence-failed'; readonly text: string }
  | { readonly type: 'state'; readonly state: ConnectionState; readonly before: ConnectionState }
  | { readonly type: 'connection-lost'; readonly wasShort: boolean }
  | { readonly type: 'session-lost' }
  | { readonly type: 'failure-while-ending'; readonly cause: MqttError }
  | { readonly type: 'shutdown-gave-up'; readonly afterMs: number; readonly left: LeftBehind }

const CHANNELS = {
  connection: channel('nestjs-mqtt:connection'),
  publish: channel('nestjs-mqtt:publish'),
  delivery: channel('nestjs-mqtt:delivery'),
  request: channel('nestjs-mqtt:request'),
}

/** One kind of event, for listeners of this client and subscribers of the process-wide diagnostics channel. */
export class Hook<E> {
  private readonly listeners = new Set<(event: E) => void>()

  constructor(
    private readonly onListenerError: (error: unknown) => void,
    private readonly channel?: Channel,
  ) {}

  /** Whether there are listeners. Check this before you create an event, because most clients have none. */
  get isHeard(): boolean {
    return this.listeners.size > 0 || this.channel?.hasSubscribers === true
  }

  /** An error thrown by a listener has no effect on the client. */
  tell(event: E): void {
    for (const listener of this.listeners) {
      try {
        listener(event)
      } catch (error) {
        this.onListenerError(error)
      }
    }
    if (this.channel?.hasSubscribers) this.channel.publish(event)
  }

  /** @returns a function that removes the listener */
  listen(listener: (event: E) => void): () => void {
    this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }
}

/** Events of one client. */
export class ClientEvents {
  readonly connection: Hook<ConnectionChange>
  readonly publish: Hook<PublishSettled>
  readonly delivery: Hook<DeliveryEvent>
  readonly request: Hook<RequestEvent>
  readonly notice: Hook<Notice>
  /** Wraps each attempt of a handler, for example in a span. `work` runs the attempt and must be called once. */
  aroundRun: (<T>(info: AttemptInfo, work: () => T) => T) | undefined

  constructor(
    readonly clientId: string,
    onListenerError: (error: unknown) => void,
  ) {
    this.connection = new Hook(onListenerError, CHANNELS.connection)
    this.publish = new Hook(onListenerError, CHANNELS.publish)
    this.delivery = new Hook(onListenerError, CHANNELS.delivery)
    this.request = new Hook(onListenerError, CHANNELS.request)
    this.notice = new Hook(onListenerError)
  }

  /** Reports a publish when it has settled. @returns its outcome */
  async publishing(
    { topic, qos }: OutboundMessage,
    settling: PublishOutcome | Promise<PublishOutcome>,
  ): Promise<PublishOutcome> {
    const outcome = await settling
    this.publish.tell({ clientId: this.clientId, topic, qos, outcome })
    return outcome
  }
}
