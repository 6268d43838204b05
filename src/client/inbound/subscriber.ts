import { bytesOf } from '../../core/protocol/packet-length.js'
import { readTopicParams } from '../../core/topic/topic-template.js'
import { type HandlerOptions, resolveHandlerOptions } from '../../options/handler-options.js'
import type { ResolvedOptions } from '../../options/resolved-options.js'
import type { WaitOptions } from '../connection/connection-wait.js'
import type { PublishPacket, PublishProperties } from '../connection/link.js'
import type { MqttSession } from '../mqtt-session.js'
import type { HandlerAttempt } from './handler-attempt.js'
import { decodeMessage, type HandlerRules, handlerRules } from './handler-rules.js'
import type { InboundHandler } from './inbound-handler.js'
import { MessageStream, type StreamLimits } from './message-stream.js'
import { newHandler } from './new-handler.js'

/** A message, as a handler at run time gets it. */
export interface MqttMessage<T = unknown> {
  readonly topic: string
  /** Decoded by the codec. */
  readonly payload: T
  /** What the named wildcards of the pattern took in this topic. */
  readonly params: Readonly<Record<string, string>>
  readonly qos: 0 | 1 | 2
  /** The message is a retained one (MQTT 5, 3.3.1.3). */
  readonly retain: boolean
  /** The message was delivered before (MQTT 5, 3.3.1.1). */
  readonly dup: boolean
  /** Properties of the PUBLISH (MQTT 5, 3.3.2.3); empty on MQTT 3.1.1. */
  readonly properties: PublishProperties
}

/** Messages for a `for await` loop. */
export interface MqttMessages<T> extends AsyncIterableIterator<MqttMessage<T>> {
  /** QoS 0 messages that made room for others, so far. */
  readonly dropped: number
}

/** What else a handler at run time gets. */
export interface MqttRun {
  /** Aborted when nobody waits for this run any more: its time is over, or the application closes. */
  readonly signal: AbortSignal
  /** 1, and more for a repeated run. */
  readonly attempt: number
  /** With `ack: 'manual'`: the message may be acknowledged. */
  ack(): void
}

/** A subscription that was made at run time. */
export interface MqttSubscription {
  /**
   * Resolves when the broker has granted it, over reconnects if need be.
   * @throws MqttError `SUBSCRIBE_REFUSED` with `reasonCode` when the broker refused it, or cannot serve it;
   * `CONNECTION_CLOSED`; `TIMEOUT` and `ABORTED` as the options say
   */
  whenGranted(wait?: WaitOptions): Promise<void>
  /**
   * No more messages for this handler. The broker is told when no other handler has the same filter. Resolves when
   * the broker has confirmed it, over reconnects if need be, or when there is nothing to tell. Need not be awaited.
   * @throws MqttError `UNSUBSCRIBE_REFUSED` with `reasonCode`; `CONNECTION_CLOSED`
   */
  unsubscribe(): Promise<void>
}

/** Handlers that come and go while the application runs. */
export class Subscriber {
  constructor(
    private readonly session: MqttSession,
    private readonly options: ResolvedOptions,
  ) {}

  subscribe<T>(
    pattern: string,
    handler: (message: MqttMessage<T>, run: MqttRun) => unknown,
    options: HandlerOptions,
  ): MqttSubscription {
    const rules = this.rulesOf(pattern, options)
    let isGone = false
    const subscription = this.add(rules, {
      // What waited for it when it was removed is not for it any more.
      run: async (packet, attempt) =>
        isGone ? undefined : handler(messageOf<T>(rules, packet), attemptOf(attempt)),
    })
    return {
      ...subscription,
      unsubscribe: () => {
        isGone = true
        return subscription.unsubscribe()
      },
    }
  }

  messages<T>(
    pattern: string,
    options: HandlerOptions,
    limits: Omit<StreamLimits, 'held'>,
    signal: AbortSignal | undefined,
  ): MessageStream<MqttMessage<T>> {
    const rules = this.rulesOf(pattern, options)
    const stream = new MessageStream<MqttMessage<T>>(
      { ...limits, held: this.session.dispatcher.rules.held },
      () => {
        void subscription.unsubscribe()
        stopListening()
        signal?.removeEventListener('abort', leave)
      },
    )
    const end = (): void => stream.end()
    const leave = (): void => stream.leave()
    const subscription = this.add(rules, {
      // It waits for its loop; the room of handlers that work is not for that.
      isPassive: true,
      concurrency: Number.POSITIVE_INFINITY,
      orderKey: () => undefined,
      run: async (packet: PublishPacket) =>
        stream.push(messageOf<T>(rules, packet), packet.qos === 0 ? bytesOf(packet) : undefined),
    })
    const stopListening = this.session.onDrain(end)
    if (signal?.aborted) stream.end()
    signal?.addEventListener('abort', leave)
    return stream
  }

  private rulesOf(pattern: string, options: HandlerOptions): HandlerRules {
    return handlerRules(pattern, resolveHandlerOptions(pattern, options), this.options)
  }

  private add(
    rules: HandlerRules,
    fields: Pick<InboundHandler, 'run'> & Partial<InboundHandler>,
  ): MqttSubscription {
    const { topicFilter } = rules.template
    const handler = newHandler({
      ...rules.runRules,
      onFailed: ({ topic }, error) =>
        this.session.journal.handlerFailed(rules.template.pattern, topic, error),
      ...fields,
    })
    const remove = this.session.addRoute(topicFilter, rules.subscription, handler)
    this.session.flushSubscriptions()
    return {
      whenGranted: wait => this.session.whenGranted(topicFilter, wait),
      unsubscribe: remove,
    }
  }
}

function messageOf<T>(rules: HandlerRules, packet: PublishPacket): MqttMessage<T> {
  const { topic, qos, retain, dup, properties = {} } = packet
  return {
    topic,
    // Seam: the caller names the type of what comes from outside, as with JSON.parse.
    payload: decodeMessage(rules, packet) as T,
    params: readTopicParams(rules.template, topic),
    qos,
    retain,
    dup,
    properties,
  }
}

function attemptOf(attempt: HandlerAttempt): MqttRun {
  return {
    get signal() {
      return attempt.signal
    },
    attempt: attempt.number,
    ack: () => attempt.ack(),
  }
}
