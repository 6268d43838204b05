import { type Channel, channel } from 'node:diagnostics_channel'
import type { ConnectionState } from '../core/connection/connection-state.js'
import type { RunOutcome } from '../core/inbound/run-outcome.js'
import type { OutboundMessage } from '../core/outbound/outbound-message.js'
import type { PublishOutcome, TryPublishOutcome } from '../core/outbound/publish-outcome.js'
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

/** A handler begins to handle a message, or has ended, with its retries and its dead letter. */
export interface DeliveryEvent {
  readonly clientId: string
  readonly type: 'start' | 'end'
  /** The same object at the start and at the end. */
  readonly key: object
  readonly pattern: string
  readonly topic: string
  readonly qos: 0 | 1 | 2
  /** At the end. */
  readonly outcome?: RunOutcome
}

/** A request begins, or has ended. */
export interface RequestEvent {
  readonly clientId: string
  readonly type: 'start' | 'end'
  /** The same object at the start and at the end. */
  readonly key: object
  readonly topic: string
  readonly protocol: RequestProtocol
  /** At the end of a request that failed. */
  readonly error?: Error
}

/** One attempt of a handler. */
export interface AttemptInfo {
  readonly pattern: string
  readonly topic: string
  readonly attempt: number
}

const CHANNELS = {
  connection: channel('nestjs-mqtt:connection'),
  publish: channel('nestjs-mqtt:publish'),
  delivery: channel('nestjs-mqtt:delivery'),
  request: channel('nestjs-mqtt:request'),
}

/** One kind of event: for listeners of this client, and for subscribers of the process-wide channel. */
export class Hook<E> {
  private readonly listeners = new Set<(event: E) => void>()

  constructor(
    private readonly channel: Channel,
    private readonly onListenerError: (error: unknown) => void,
  ) {}

  /** Ask this before you make an event: most clients have nobody who listens. */
  get isHeard(): boolean {
    return this.listeners.size > 0 || this.channel.hasSubscribers
  }

  /** A listener that throws stops nothing. */
  tell(event: E): void {
    for (const listener of this.listeners) {
      try {
        listener(event)
      } catch (error) {
        this.onListenerError(error)
      }
    }
    if (this.channel.hasSubscribers) this.channel.publish(event)
  }

  /** @returns what ends this */
  listen(listener: (event: E) => void): () => void {
    this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }
}

/** What happens in one client. */
export class ClientEvents {
  readonly connection: Hook<ConnectionChange>
  readonly publish: Hook<PublishSettled>
  readonly delivery: Hook<DeliveryEvent>
  readonly request: Hook<RequestEvent>
  /** Wraps each attempt of a handler, which runs when `work` is called, once: for a span around it. */
  aroundRun: (<T>(info: AttemptInfo, work: () => T) => T) | undefined

  constructor(
    readonly clientId: string,
    onListenerError: (error: unknown) => void,
  ) {
    this.connection = new Hook(CHANNELS.connection, onListenerError)
    this.publish = new Hook(CHANNELS.publish, onListenerError)
    this.delivery = new Hook(CHANNELS.delivery, onListenerError)
    this.request = new Hook(CHANNELS.request, onListenerError)
  }

  /** Tells of a publish when it has settled. @returns its outcome */
  async publishing(
    { topic, qos }: OutboundMessage,
    settling: PublishOutcome | Promise<PublishOutcome>,
  ): Promise<PublishOutcome> {
    const outcome = await settling
    this.publish.tell({ clientId: this.clientId, topic, qos, outcome })
    return outcome
  }
}
