import { Logger } from '@nestjs/common'
import { ClientProxy, type ReadPacket, type WritePacket } from '@nestjs/microservices'
import type { PublishProperties } from '../client/connection/link.js'
import { MqttSession } from '../client/mqtt-session.js'
import type { OutgoingRequest } from '../client/requests/open-requests.js'
import { ThinnedLog } from '../client/thinned-log.js'
import type { ConnectionState } from '../core/connection/connection-state.js'
import { describeFailure, isMqttError, MqttError } from '../core/errors.js'
import { oneLine } from '../core/log-thinning.js'
import type { PublishOutcome } from '../core/outbound/publish-outcome.js'
import { assertTopicName } from '../core/topic/topic-filter.js'
import { type Codec, encodePayload, jsonCodec, resolveCodec } from '../options/codec.js'
import { resolveOptions } from '../options/option-checks.js'
import type { MqttModuleOptions } from '../options/options.js'
import type { ResolvedOptions } from '../options/resolved-options.js'
import { assertRoutable } from './mqtt.pattern.js'
import { readRecord } from './mqtt.response-messages.js'
import type { MqttTransportEvents } from './mqtt.transport.js'

/** Options of a client that has a connection of its own. */
export interface MqttClientOptions extends MqttModuleOptions {
  /**
   * Who answers and listens: an application with this package, or with Nest's built-in transport, which takes its own
   * envelope only. @default 'nestjs-mqtt'
   */
  readonly peer?: 'nestjs-mqtt' | 'nest'
}

/**
 * `send()` and `emit()` over MQTT, for code that has Nest's `ClientProxy`: by
 * `ClientsModule.register([{ name, customClass: MqttClientProxy, options }])` with a connection of its own, or injected
 * where `MqttModule` is imported, on the connection of the module. `MqttRecordBuilder` gives QoS, retain and properties.
 */
export class MqttClientProxy extends ClientProxy<MqttTransportEvents> {
  private session: MqttSession
  private readonly options: ResolvedOptions
  private readonly codec: Codec
  private readonly ownsSession: boolean
  private readonly isPeerBuiltIn: boolean
  private opened: Promise<void> | undefined
  private readonly logger = loggerOf('MqttClientProxy')
  private readonly failures = new ThinnedLog(this.logger)
  private readonly listeners = new Set<(state: ConnectionState) => void>()

  /** @throws MqttError `INVALID_OPTION` */
  constructor(
    options: MqttClientOptions,
    shared?: { readonly session: MqttSession; readonly options: ResolvedOptions },
  ) {
    super()
    const { peer = 'nestjs-mqtt', ...rest } = options
    if (peer !== 'nestjs-mqtt' && peer !== 'nest')
      throw new MqttError(
        'INVALID_OPTION',
        'MqttClientProxy options: "peer": allowed is one of "nestjs-mqtt", "nest"',
      )
    this.isPeerBuiltIn = peer === 'nest'
    this.options = shared?.options ?? resolveOptions(rest, 'MqttClientProxy options')
    this.session = shared?.session ?? new MqttSession(this.options, this.logger)
    this.ownsSession = shared === undefined
    this.codec = resolveCodec(this.options.codec)
    this.listeners.add(({ status }) => this._status$.next(status))
    this.listen()
  }

  /** Connects. The module's connection is there already. */
  connect(): Promise<void> {
    if (!this.ownsSession) return Promise.resolve()
    this.opened ??= this.open()
    return this.opened
  }

  /** Ends a connection of its own, and waits for what is under way. */
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
      throw new MqttError('INVALID_OPTION', `there is no event "${String(event)}"; listen to "state"`)
    this.listeners.add(callback)
  }

  /** @throws MqttError `CONNECTION_LOST` while there is no connection */
  unwrap<T>(): T {
    return this.session.connection.unwrap<T>()
  }

  protected publish(packet: ReadPacket, callback: (packet: WritePacket) => void): () => void {
    const { requester } = this.session
    const request = this.requestOf(packet)
    return requester.start(
      request,
      {
        protocol: this.isPeerBuiltIn ? 'nest' : requester.defaultProtocol,
        isStream: true,
        codec: this.codec,
        timeoutMs: this.options.requests.timeoutMs,
        signal: undefined,
      },
      {
        next: response => callback({ response }),
        end: () => callback({ isDisposed: true }),
        // What the responder sent is what the caller gets, as with the built-in client.
        fail: error =>
          callback({ err: isMqttError(error, 'REQUEST_FAILED') ? (error.response ?? error) : error }),
      },
    )
  }

  protected async dispatchEvent<T>(packet: ReadPacket): Promise<T> {
    const { data, pattern, metadata, ...message } = this.requestOf(packet)
    const payload = this.isPeerBuiltIn ? jsonCodec.encode({ pattern, data, metadata }) : message.payload
    const outcome = await this.session.publish({ ...message, payload })
    assertDelivered(message.topic, outcome)
    // Seam: the contract of Nest's emit() lets the caller name the type of nothing.
    return undefined as T
  }

  private requestOf(packet: ReadPacket): OutgoingRequest {
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
      qos: options.qos ?? 0,
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
      this.session.serve()
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

/** The type of a packet has no metadata in Nest 11. */
type PacketWithMetadata = ReadPacket & { readonly metadata?: Record<string, string> | undefined }

function metadataOf({ metadata }: PacketWithMetadata): Record<string, string> | undefined {
  return metadata
}

/** A User Property of the record has priority over metadata of the same name. */
function withMetadata(
  properties: PublishProperties | undefined,
  metadata: Readonly<Record<string, string>> | undefined,
): PublishProperties | undefined {
  if (metadata === undefined) return properties
  return { ...properties, userProperties: { ...metadata, ...properties?.userProperties } }
}

function assertDelivered(topic: string, outcome: PublishOutcome): void {
  if (outcome.status === 'sent' || outcome.status === 'acknowledged') return
  const why = outcome.status === 'dropped' ? `dropped: ${outcome.reason}` : outcome.status
  throw new MqttError('NOT_SENT', `the event on "${topic}" was not delivered: ${why}`)
}

/** The log of a connection. */
export function loggerOf(context: string) {
  const logger = new Logger(context)
  return {
    error: (text: string) => logger.error(text),
    warn: (text: string) => logger.warn(text),
    log: (text: string) => logger.log(text),
    debug: (text: string) => logger.debug(text),
  }
}
