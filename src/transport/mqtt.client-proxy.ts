import { Logger } from '@nestjs/common'
import { ClientProxy, type ReadPacket, type WritePacket } from '@nestjs/microservices'
import type { PublishProperties } from '../client/connection/link.js'
import { GuardedLog, ThinnedLog } from '../client/journal.js'
import { MqttSession } from '../client/mqtt-session.js'
import type { OutgoingRequest } from '../client/requests/request-messages.js'
import type { ConnectionState } from '../core/connection/connection-state.js'
import { describeFailure, isMqttError, MqttError } from '../core/errors.js'
import { oneLine } from '../core/log-lines.js'
import type { PublishOutcome } from '../core/outbound/publish-outcome.js'
import { assertTopicName } from '../core/topic/topic-filter.js'
import { type Codec, encodePayload, jsonCodec, resolveCodec } from '../options/codec.js'
import { resolveOptions } from '../options/option-checks.js'
import type { MqttModuleOptions } from '../options/options.js'
import type { ResolvedOptions } from '../options/resolved-options.js'
import { assertReadable } from '../options/schema.js'
import { assertRoutable } from './mqtt.handler-checks.js'
import { readRecord } from './mqtt.results.js'
import type { MqttTransportEvents } from './mqtt.transport.js'

/** Options of an `MqttClientProxy` with its own connection. */
export interface MqttClientOptions extends MqttModuleOptions {
  /**
   * Transport of the applications that receive the messages: this package, or Nest's built-in transport, which only
   * accepts its own envelope. @default 'nestjs-mqtt'
   */
  readonly peer?: 'nestjs-mqtt' | 'nest'
}

/**
 * `send()` and `emit()` over MQTT, for code that uses Nest's `ClientProxy`. Inject it to use the connection of
 * `MqttModule`, or register it with `ClientsModule.register([{ name, customClass: MqttClientProxy, options }])` to use its
 * own connection. Set QoS, retain and properties with `MqttRecordBuilder`.
 */
export class MqttClientProxy extends ClientProxy<MqttTransportEvents> {
  private session: MqttSession
  private readonly options: ResolvedOptions
  private readonly codec: Codec
  private readonly ownsSession: boolean
  private readonly isPeerBuiltIn: boolean
  private opened: Promise<void> | undefined
  private readonly logger = loggerOf('MqttClientProxy')
  private readonly failures = new ThinnedLog(new GuardedLog(this.logger))
  private readonly listeners = new Set<(state: ConnectionState) => void>()

  /** @throws MqttError `INVALID_OPTION` */
  constructor(
    options: MqttClientOptions,
    shared?: { readonly session: MqttSession; readonly options: ResolvedOptions },
  ) {
    super()
    assertReadable('MqttClientProxy options', options)
    const { peer = 'nestjs-mqtt', ...rest } = options
    if (peer !== 'nestjs-mqtt' && peer !== 'nest')
      throw new MqttError(
        'INVALID_OPTION',
        'MqttClientProxy options: "peer" must be one of "nestjs-mqtt", "nest"',
      )
    this.isPeerBuiltIn = peer === 'nest'
    this.options = shared?.options ?? resolveOptions(rest, 'MqttClientProxy options')
    this.session = shared?.session ?? new MqttSession(this.options, this.logger)
    this.ownsSession = shared === undefined
    this.codec = resolveCodec(this.options.codec)
    this.listeners.add(({ status }) => this._status$.next(status))
    this.listen()
  }

  /** Opens its own connection. Does nothing on the connection of the module. */
  connect(): Promise<void> {
    if (!this.ownsSession) return Promise.resolve()
    this.opened ??= this.open()
    return this.opened
  }

  /** Closes its own connection after open requests and publishes have settled. Does nothing on the connection of the module. */
  async close(): Promise<void> {
    if (!this.ownsSession) return
    const { session } = this
    await session.close()
    this.failures.flush()
    if (this.session === session) this.opened = undefined
  }

  override on<Event extends keyof MqttTransportEvents>(
    event: Event,
    callback: MqttTransportEvents[Event],
  ): void {
    if (event !== 'state')
      throw new MqttError('INVALID_OPTION', `unknown event "${String(event)}"; use "state"`)
    this.listeners.add(callback)
  }

  /** Returns the `mqtt` client of the current connection. @throws MqttError `CONNECTION_LOST` without a connection */
  unwrap<T>(): T {
    return this.session.connection.unwrap<T>()
  }

  protected publish(packet: ReadPacket, callback: (packet: WritePacket) => void): () => void {
    const options = this.isPeerBuiltIn ? ({ protocol: 'nest' } as const) : {}
    return this.session.requester.request(this.requestOf(packet, 0), options, true, {
      next: response => callback({ response }),
      end: () => callback({ isDisposed: true }),
      // As with the built-in client, the caller receives the error object that the responder sent.
      fail: error =>
        callback({ err: isMqttError(error, 'REQUEST_FAILED') ? (error.response ?? error) : error }),
    })
  }

  protected async dispatchEvent<T>(packet: ReadPacket): Promise<T> {
    const { data, pattern, metadata, ...message } = this.requestOf(packet, this.options.eventQos)
    const payload = this.isPeerBuiltIn ? jsonCodec.encode({ pattern, data, metadata }) : message.payload
    const outcome = await this.session.publish({ ...message, payload })
    assertDelivered(message.topic, outcome)
    // Seam: Nest declares a type parameter for the result of emit(), which has no value.
    return undefined as T
  }

  private requestOf(packet: ReadPacket, qos: 0 | 1 | 2): OutgoingRequest {
    const pattern: unknown = packet.pattern
    assertRoutable(pattern, 'INVALID_TOPIC_NAME')
    const topic = this.normalizePattern(pattern)
    assertTopicName(topic)
    const { data, options } = readRecord(`record for "${topic}"`, packet.data)
    const metadata = metadataOf(packet)
    const properties = withMetadata(options.properties, this.isPeerBuiltIn ? undefined : metadata)
    return {
      topic,
      pattern,
      data,
      metadata,
      payload: encodePayload(this.codec, topic, data),
      qos: options.qos ?? qos,
      retain: options.retain ?? false,
      ...(properties === undefined ? {} : { properties }),
    }
  }

  private async open(): Promise<void> {
    const { status } = this.session.connection.state
    if (status === 'closing' || status === 'closed') {
      this.session = new MqttSession(this.options, this.logger)
      this.listen()
    }
    try {
      await this.session.start()
      this.session.dispatcher.start()
    } catch (error) {
      // The next call makes a new connection.
      this.opened = undefined
      const cause = oneLine(describeFailure(error))
      this.failures.say('warn', `not connected: ${cause}; the next send() or emit() connects again`)
      throw error
    }
  }

  private listen(): void {
    this.session.connection.attach({
      stateChanged: state => {
        for (const listener of this.listeners) listener(state)
      },
    })
  }
}

/** In Nest 11 the type of a packet has no `metadata`. */
type PacketWithMetadata = ReadPacket & { readonly metadata?: Record<string, string> | undefined }

function metadataOf({ metadata }: PacketWithMetadata): Record<string, string> | undefined {
  return metadata
}

/** Adds metadata to the User Properties. A User Property of the record takes precedence over metadata of the same name. */
function withMetadata(
  properties: PublishProperties | undefined,
  metadata: Readonly<Record<string, string>> | undefined,
): PublishProperties | undefined {
  if (metadata === undefined) return properties
  return { ...properties, userProperties: { ...metadata, ...properties?.userProperties } }
}

/** A stored message is delivered later. */
const ACCEPTED: ReadonlySet<PublishOutcome['status']> = new Set(['sent', 'acknowledged', 'stored'])

function assertDelivered(topic: string, outcome: PublishOutcome): void {
  if (ACCEPTED.has(outcome.status)) return
  const why = outcome.status === 'dropped' ? `dropped: ${outcome.reason}` : outcome.status
  throw new MqttError('NOT_SENT', `the event on "${topic}" was not delivered: ${why}`, {
    outcome,
    ...(outcome.status === 'refused' ? { reasonCode: outcome.reasonCode } : {}),
    ...(outcome.status === 'lost' ? { cause: outcome.cause } : {}),
  })
}

/** Returns the logger of a connection. */
export function loggerOf(context: string) {
  const logger = new Logger(context)
  return {
    error: (text: string) => logger.error(text),
    warn: (text: string) => logger.warn(text),
    log: (text: string) => logger.log(text),
    debug: (text: string) => logger.debug(text),
  }
}
