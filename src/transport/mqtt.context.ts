import { BaseRpcContext } from '@nestjs/microservices'
import type { PublishPacket, PublishProperties } from '../client/connection/link.js'
import type { HandlerAttempt } from '../client/inbound/delivery.js'
import type { MqttMessage } from '../client/inbound/subscriber.js'
import { LEASE, STREAM } from '../core/requests/request-rules.js'
import { readTopicParams, type TopicTemplate } from '../core/topic/topic-filter.js'

/**
 * What a handler can read about its message besides the payload. Inject it with `@Ctx()`. It has the methods of the class
 * of the same name in `@nestjs/microservices`, but is not a subclass: tools such as `@nestjs/observe` name an operation
 * after the topic of that class, so that each topic of a wildcard pattern would become a separate operation.
 */
export class MqttContext extends BaseRpcContext<[topic: string, packet: PublishPacket]> {
  /** Topic Name of the message. */
  readonly topic: string
  /** The pattern of this handler, as written in the decorator. */
  readonly pattern: string
  /** Quality of Service of the delivery. */
  readonly qos: 0 | 1 | 2
  /** Whether this is a retained message (MQTT 5, 3.3.1.3). */
  readonly retain: boolean
  /** Whether the broker may have delivered the message before (MQTT 5, 3.3.1.1). */
  readonly dup: boolean
  /** Properties of the PUBLISH (MQTT 5, 3.3.2.3); empty on MQTT 3.1.1. */
  readonly properties: PublishProperties

  constructor(
    packet: PublishPacket,
    private readonly template: TopicTemplate,
    private readonly run: HandlerAttempt,
    private readonly metadata?: unknown,
  ) {
    super([packet.topic, packet])
    this.topic = packet.topic
    this.pattern = template.pattern
    this.qos = packet.qos
    this.retain = packet.retain
    this.dup = packet.dup
    this.properties = packet.properties ?? {}
  }

  /** Topic Name of the message. */
  getTopic(): string {
    return this.topic
  }

  /** The PUBLISH packet as `mqtt` parsed it. */
  getPacket(): PublishPacket {
    return this.getArgByIndex(1)
  }

  /** The pattern of this handler: the same for all topics that it matches. */
  getPattern(): string {
    return this.pattern
  }

  /**
   * Metadata that the sender attached with `setOnDispatchHook` of its client: from Nest's envelope, or else the User
   * Properties (MQTT 5), the first value of each name. Undefined if there is none.
   */
  getMetadata(): Record<string, string> | undefined {
    return metadataOf(this.metadata) ?? metadataOf(this.userProperties())
  }

  /** The first value of a User Property (MQTT 5, 3.3.2.3.7). Undefined if the message has none with this name. */
  userProperty(name: string): string | undefined {
    const { userProperties = {} } = this.properties
    const value: unknown = Object.hasOwn(userProperties, name) ? userProperties[name] : undefined
    const first: unknown = Array.isArray(value) ? value[0] : value
    return typeof first === 'string' ? first : undefined
  }

  private userProperties(): Record<string, unknown> {
    const { userProperties, responseTopic } = this.properties
    if (responseTopic === undefined) return userProperties ?? {}
    // These User Properties of a request belong to the protocol.
    const { [STREAM]: _stream, [LEASE]: _lease, ...others } = userProperties ?? {}
    return others
  }

  /** Aborted when the run exceeds `timeoutMs`, when its requester cancels the stream, or when the application closes. */
  get signal(): AbortSignal {
    return this.run.signal
  }

  /** Number of this run: 1, and more for retries. */
  get attempt(): number {
    return this.run.number
  }

  /** Acknowledges the message, with `ack: 'manual'`. Otherwise, and when called again, it does nothing. */
  ack(): void {
    this.run.ack()
  }

  /** Values of the named wildcards of the pattern. */
  get params(): Readonly<Record<string, string>> {
    return readTopicParams(this.template, this.topic)
  }
}

/** What a handler with `batch` can read about its messages. Inject it with `@Ctx()`. */
export class MqttBatchContext extends BaseRpcContext<[messages: readonly MqttMessage[]]> {
  /** The messages of the batch, in order of arrival, with their topics, parameters and properties. */
  readonly messages: readonly MqttMessage[]
  /** The pattern of this handler, as written in the decorator. */
  readonly pattern: string
  /** Number of this run of the batch: 1, and more for retries. */
  readonly attempt: number

  constructor(
    messages: readonly MqttMessage[],
    template: TopicTemplate,
    attempt: HandlerAttempt,
    /** Aborted when the run exceeds `timeoutMs`, or when the application closes. */
    readonly signal: AbortSignal,
  ) {
    super([messages])
    this.messages = messages
    this.pattern = template.pattern
    this.attempt = attempt.number
  }

  /** The pattern of this handler: the same for all topics that it matches. */
  getPattern(): string {
    return this.pattern
  }
}

/** Keeps string values only, because metadata comes from outside and may have any shape. */
function metadataOf(source: unknown): Record<string, string> | undefined {
  if (typeof source !== 'object' || source === null) return undefined
  const texts = Object.entries(source).flatMap(([name, value]): [string, string][] => {
    const first: unknown = Array.isArray(value) ? value[0] : value
    return typeof first === 'string' ? [[name, first]] : []
  })
  return texts.length === 0 ? undefined : Object.fromEntries(texts)
}
