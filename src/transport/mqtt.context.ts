import { MqttContext as NestMqttContext } from '@nestjs/microservices'
import { readTopicParams, type TopicTemplate } from '../topic/topic-template.js'
import type { PublishPacket, PublishProperties } from './connection/link.js'
import type { HandlerAttempt } from './inbound/handler-attempt.js'

/** What a handler may know of its message besides the payload. Inject it with `@Ctx()`. */
export class MqttContext extends NestMqttContext {
  /** Topic Name of the message. */
  readonly topic: string
  /** The pattern of this handler, as it stands in the decorator. */
  readonly pattern: string
  /** Quality of Service in which the broker delivered. */
  readonly qos: 0 | 1 | 2
  /** The message is a retained one (MQTT 5, 3.3.1.3). */
  readonly retain: boolean
  /** The message was delivered before (MQTT 5, 3.3.1.1). */
  readonly dup: boolean
  /** Properties of the PUBLISH (MQTT 5, 3.3.2.3); empty on MQTT 3.1.1. */
  readonly properties: PublishProperties

  constructor(
    packet: PublishPacket,
    private readonly template: TopicTemplate,
    private readonly run: HandlerAttempt,
  ) {
    super([packet.topic, packet])
    this.topic = packet.topic
    this.pattern = template.pattern
    this.qos = packet.qos
    this.retain = packet.retain
    this.dup = packet.dup
    this.properties = packet.properties ?? {}
  }

  /** Aborted when nobody waits for this run any more: its `timeoutMs` is over, or the application closes. */
  get signal(): AbortSignal {
    return this.run.signal
  }

  /** 1, and more for a run that `retries` repeats. */
  get attempt(): number {
    return this.run.number
  }

  /** With `ack: 'manual'`: the message may be acknowledged. Without it, or called again, it does nothing. */
  ack(): void {
    this.run.ack()
  }

  /** What the named wildcards of the pattern took in this topic. */
  get params(): Readonly<Record<string, string>> {
    return readTopicParams(this.template, this.topic)
  }
}
