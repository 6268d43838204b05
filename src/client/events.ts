import { type Channel, channel } from 'node:diagnostics_channel'
import type { ConnectionState, ProtocolVersion } from '../core/connection/connection-state.js'
import type { RunOutcome } from '../core/inbound/inbound-count.js'
import type { Notice } from '../core/log-lines.js'
import type { StoreChange } from '../core/outbound/message-store.js'
import { type OutboundMessage, withUserProperties } from '../core/outbound/outbound-message.js'
import type { PublishOutcome, TryPublishOutcome } from '../core/outbound/publish-outcome.js'
import type { PublishPacket, PublishProperties } from '../core/protocol/packets.js'
import type { RequestProtocol } from '../core/requests/request-rules.js'
import type { MqttStats } from './report.js'

export type { HeldUp, LeftBehind, Notice } from '../core/log-lines.js'

/** The client that an event belongs to. The same object in all events of one client. */
export interface ObservedClient {
  readonly clientId: string
  readonly state: ConnectionState
  /** Of the current or the last connection; before the first one, the version that it tries. */
  readonly protocolVersion: ProtocolVersion
  /** URL of the broker of the current or the last connection, without user, password and query. */
  readonly broker: string | undefined
  /** Slots for handlers: `limit` is `inbound.concurrency`. */
  readonly handlerSlots: { readonly inUse: number; readonly limit: number }
  stats(): MqttStats
}

/** The connection has changed. */
export interface ConnectionChange {
  readonly client: ObservedClient
  readonly state: ConnectionState
  readonly before: ConnectionState
}

/** Why a message is published. `signal`: a cancel or a renewal of a stream. `presence`: `online` or `offline`. */
export type PublishPurpose = 'message' | 'request' | 'response' | 'dead-letter' | 'signal' | 'presence'

/** Adds User Properties to a message that has not been written yet. They are sent on MQTT 5 only. */
type AddUserProperties = (properties: Readonly<Record<string, string>>) => void

interface PublishFacts {
  readonly client: ObservedClient
  /** The same object at the start and at the end. */
  readonly key: object
  readonly purpose: PublishPurpose
  readonly topic: string
  readonly qos: 0 | 1 | 2
  readonly retain: boolean
  /** Size of the payload. */
  readonly bytes: number
}

/** A publish starts, or has settled. */
export type PublishEvent =
  | (PublishFacts & { readonly type: 'start'; readonly addUserProperties: AddUserProperties })
  | (PublishFacts & { readonly type: 'end'; readonly outcome: PublishOutcome })
  /** The publish was rejected, for example because it exceeds a limit of the broker. */
  | (PublishFacts & { readonly type: 'end'; readonly outcome: undefined; readonly error: unknown })

/** What receives the messages: `loop` is a `for await` loop; a batch is one `batch`, and each of its messages `in-batch`. */
export type DeliveryKind = 'event' | 'request' | 'loop' | 'batch' | 'in-batch'

export interface DeliveryFacts {
  readonly client: ObservedClient
  /** The same object from the start to the end. */
  readonly key: object
  readonly kind: DeliveryKind
  /** The pattern of the handler, as written. */
  readonly pattern: string
  readonly topic: string
  readonly qos: 0 | 1 | 2
  readonly retain: boolean
  readonly dup: boolean
  /** Size of the payload. */
  readonly bytes: number
  readonly properties: PublishProperties
  /** The messages of a batch; undefined otherwise. The other fields describe the first message. */
  readonly batch: readonly PublishPacket[] | undefined
}

/** Calls `work` and returns its result. */
export type RunWrapper = <T>(work: () => T) => T

/** A handler starts with a message, an attempt has failed, or the handler has ended, including retries and dead letter. */
export type DeliveryEvent =
  /** `wrap`: runs the handler, its retries and its dead letter within `wrapper`, for example in a context. */
  | (DeliveryFacts & { readonly type: 'start'; readonly wrap: (wrapper: RunWrapper) => void })
  /** `attempt` starts at 1. */
  | (DeliveryFacts & { readonly type: 'attempt-failed'; readonly attempt: number; readonly error: unknown })
  /** `error`: of the last failed attempt, if there is one. */
  | (DeliveryFacts & { readonly type: 'end'; readonly outcome: RunOutcome; readonly error: unknown })

export interface RequestFacts {
  readonly client: ObservedClient
  /** The same object at the start and at the end. */
  readonly key: object
  readonly topic: string
  readonly protocol: RequestProtocol
  /** Whether the requester accepts several responses. */
  readonly isStream: boolean
}

/** A request starts, or has ended. `error`: set if it failed. `responses`: number of responses so far. */
export type RequestEvent =
  | (RequestFacts & { readonly type: 'start'; readonly addUserProperties: AddUserProperties })
  | (RequestFacts & { readonly type: 'end'; readonly responses: number; readonly error?: Error })

export interface StreamFacts {
  readonly client: ObservedClient
  /** The same object at the start and at the end. */
  readonly key: object
  /** The pattern of the handler whose result is sent. */
  readonly pattern: string
  /** The topic of the request. */
  readonly topic: string
}

/** Why a stream of responses ended. `finished`: its source has completed, or has failed with `error`. */
export type StreamEndReason = 'finished' | 'cancelled' | 'abandoned' | 'evicted' | 'closing'

/** The values of an Observable or an async iterable are sent as responses. */
export type StreamEvent =
  | (StreamFacts & { readonly type: 'start' })
  | (StreamFacts & {
      readonly type: 'end'
      readonly reason: StreamEndReason
      /** Number of values sent. */
      readonly values: number
      readonly error?: unknown
    })

/** The client has measured the link with a PINGRESP. */
export interface LinkMeasured {
  readonly client: ObservedClient
  /** Time from PINGREQ to PINGRESP, which includes the queue of the link. */
  readonly ageMs: number
  /** Rate of the link, once the link has been the limit on this connection. */
  readonly bytesPerSecond: number | undefined
}

/** Something happened to a message of the store, or to the store. */
export type StoreEvent = StoreChange & { readonly client: ObservedClient }

/** Names of the channels of `node:diagnostics_channel`, with the type of their messages in `MqttChannelMessages`. */
export const MQTT_CHANNELS = {
  connection: 'nestjs-mqtt:connection',
  publish: 'nestjs-mqtt:publish',
  delivery: 'nestjs-mqtt:delivery',
  request: 'nestjs-mqtt:request',
  stream: 'nestjs-mqtt:stream',
  link: 'nestjs-mqtt:link',
  store: 'nestjs-mqtt:store',
} as const

/** What each channel of `MQTT_CHANNELS` publishes. */
export interface MqttChannelMessages {
  connection: ConnectionChange
  publish: PublishEvent
  delivery: DeliveryEvent
  request: RequestEvent
  stream: StreamEvent
  link: LinkMeasured
  store: StoreEvent
}

const open = new Set<ObservedClient>()

/** The clients of this process that were opened and not closed. */
export const openClients: ReadonlySet<ObservedClient> = open

/** One kind of event, for listeners of this client and subscribers of the process-wide diagnostics channel. */
export class Hook<E> {
  /** Created with the first listener, because most hooks have none. */
  #listeners: Set<(event: E) => void> | undefined
  readonly #channel: Channel | undefined
  readonly #onListenerError: (error: unknown) => void

  constructor(onListenerError: (error: unknown) => void, channel?: Channel) {
    this.#onListenerError = onListenerError
    this.#channel = channel
  }

  /** Whether there are listeners. Check this before you create an event, because most clients have none. */
  get hasListeners(): boolean {
    return (this.#listeners?.size ?? 0) > 0 || this.#channel?.hasSubscribers === true
  }

  /** An error thrown by a listener has no effect on the client. */
  emit(event: E): void {
    this.callListeners(event)
    if (this.#channel?.hasSubscribers) this.#channel.publish(event)
  }

  /** Emits an event, and runs `work` in the stores that are bound to the channel. */
  emitAround<T>(event: E, work: () => T): T {
    this.callListeners(event)
    if (!this.#channel?.hasSubscribers) return work()
    // Seam: the declared type asks for the type of a store, but the message of a channel may be anything.
    return this.#channel.runStores(event as object, work)
  }

  /** @returns a function that removes the listener */
  listen(listener: (event: E) => void): () => void {
    this.#listeners ??= new Set()
    this.#listeners.add(listener)
    return () => this.#listeners?.delete(listener)
  }

  private callListeners(event: E): void {
    if (this.#listeners === undefined) return
    for (const listener of this.#listeners) {
      try {
        listener(event)
      } catch (error) {
        this.#onListenerError(error)
      }
    }
  }
}

/** Events of one client. */
export class ClientEvents {
  readonly connection: Hook<ConnectionChange>
  readonly publish: Hook<PublishEvent>
  readonly delivery: Hook<DeliveryEvent>
  readonly request: Hook<RequestEvent>
  readonly stream: Hook<StreamEvent>
  readonly link: Hook<LinkMeasured>
  readonly store: Hook<StoreEvent>
  readonly notice: Hook<Notice>

  constructor(
    readonly client: ObservedClient,
    readonly onListenerError: (error: unknown) => void,
  ) {
    const hook = <K extends keyof MqttChannelMessages>(name: K) =>
      new Hook<MqttChannelMessages[K]>(onListenerError, channel(MQTT_CHANNELS[name]))
    this.connection = hook('connection')
    this.publish = hook('publish')
    this.delivery = hook('delivery')
    this.request = hook('request')
    this.stream = hook('stream')
    this.link = hook('link')
    this.store = hook('store')
    this.notice = new Hook(onListenerError)
  }

  connectionChanged(state: ConnectionState, before: ConnectionState): void {
    const { client, connection } = this
    if (state.status === 'closed') open.delete(client)
    else open.add(client)
    if (connection.hasListeners) connection.emit({ client, state, before })
  }

  /** Publishes a message, and reports its start and its end. */
  async publishing(
    message: OutboundMessage,
    purpose: PublishPurpose,
    publish: (message: OutboundMessage) => PublishOutcome | Promise<PublishOutcome>,
  ): Promise<PublishOutcome> {
    const begun = this.publishBegins(message, purpose)
    try {
      const outcome = await publish(begun.message)
      this.publish.emit({ ...begun.facts, type: 'end', outcome })
      return outcome
    } catch (error) {
      this.publish.emit({ ...begun.facts, type: 'end', outcome: undefined, error })
      throw error
    }
  }

  /** The same for a publish whose caller does not wait for the outcome. */
  tryPublishing(
    message: OutboundMessage,
    publish: (message: OutboundMessage, settle: (outcome: PublishOutcome) => void) => TryPublishOutcome,
  ): TryPublishOutcome {
    const begun = this.publishBegins(message, 'message')
    const settle = (outcome: PublishOutcome): void =>
      this.publish.emit({ ...begun.facts, type: 'end', outcome })
    try {
      const result = publish(begun.message, settle)
      if (result.status === 'dropped') settle(result)
      return result
    } catch (error) {
      this.publish.emit({ ...begun.facts, type: 'end', outcome: undefined, error })
      throw error
    }
  }

  private publishBegins(message: OutboundMessage, purpose: PublishPurpose) {
    const { topic, qos, retain, payload } = message
    const facts = { client: this.client, key: {}, purpose, topic, qos, retain, bytes: payload.length }
    const begun = { facts, message }
    const addUserProperties: AddUserProperties = added => {
      begun.message = withUserProperties(begun.message, added)
    }
    this.publish.emit({ ...facts, type: 'start', addUserProperties })
    return begun
  }
}
