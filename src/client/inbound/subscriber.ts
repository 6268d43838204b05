import { bytesOf } from '../../core/inbound/open-messages.js'
import { readTopicParams } from '../../core/topic/topic-filter.js'
import type { RespondOptions } from '../../options/client-options.js'
import { decodePacket } from '../../options/codec.js'
import { type HandlerOptions, resolveHandlerOptions } from '../../options/handler-options.js'
import type { ResolvedOptions } from '../../options/resolved-options.js'
import type { PublishPacket, PublishProperties } from '../connection/link.js'
import type { MqttSession } from '../mqtt-session.js'
import { Responder } from '../requests/responder.js'
import type { WaitOptions } from '../waits.js'
import { type HandlerAttempt, type InboundHandler, newHandler } from './delivery.js'
import { type HandlerRules, handlerRules } from './handler-rules.js'
import { MessageStream, type StreamLimits } from './message-stream.js'

/** A message, as passed to a handler that was added at run time. */
export interface MqttMessage<T = unknown> {
  readonly topic: string
  /** The decoded payload. */
  readonly payload: T
  /** Values of the named wildcards of the pattern. */
  readonly params: Readonly<Record<string, string>>
  readonly qos: 0 | 1 | 2
  /** Whether this is a retained message (MQTT 5, 3.3.1.3). */
  readonly retain: boolean
  /** Whether the broker may have delivered the message before (MQTT 5, 3.3.1.1). */
  readonly dup: boolean
  /** Properties of the PUBLISH (MQTT 5, 3.3.2.3); empty on MQTT 3.1.1. */
  readonly properties: PublishProperties
}

/** Messages for a `for await` loop. */
export interface MqttMessages<T> extends AsyncIterableIterator<MqttMessage<T>> {
  /** Number of QoS 0 messages that were dropped because `limit` messages waited. */
  readonly dropped: number
}

/** The second argument of a handler that was added at run time. */
export interface MqttRun {
  /** Aborted when the run exceeds `timeoutMs`, or when the application closes. */
  readonly signal: AbortSignal
  /** Number of this run: 1, and more for retries. */
  readonly attempt: number
  /** Acknowledges the message, with `ack: 'manual'`. */
  ack(): void
}

/** A subscription that was added at run time. `await using` removes its handler at the end of the block. */
export interface MqttSubscription extends AsyncDisposable {
  /**
   * Resolves when the broker has granted the subscription, if necessary after a reconnect.
   * @throws MqttError `SUBSCRIBE_REFUSED` with `reasonCode` if the broker refused it or cannot serve it;
   * `CONNECTION_CLOSED`; `TIMEOUT` or `ABORTED`, if you set `timeoutMs` or `signal`
   */
  whenGranted(wait?: WaitOptions): Promise<void>
  /**
   * Removes the handler, and unsubscribes if no other handler has the same filter. Resolves when the broker has confirmed it, if
   * necessary after a reconnect, or at once if there is nothing to unsubscribe. You need not await it.
   * @throws MqttError `UNSUBSCRIBE_REFUSED` with `reasonCode`; `CONNECTION_CLOSED`
   */
  unsubscribe(): Promise<void>
  /** Calls `unsubscribe()` and does not wait for the broker. */
  [Symbol.asyncDispose](): Promise<void>
}

/** Handlers that come and go while the application runs. */
export class Subscriber {
  private readonly responder: Responder

  constructor(
    private readonly session: MqttSession,
    private readonly options: ResolvedOptions,
  ) {
    this.responder = new Responder(session)
  }

  subscribe<T>(
    pattern: string,
    handler: (message: MqttMessage<T>, run: MqttRun) => unknown,
    options: HandlerOptions,
  ): MqttSubscription {
    const rules = this.rulesOf(pattern, options)
    return this.addHandler(rules, (packet, attempt) => {
      const payload = decodePacket(rules.codec, packet)
      return handler(messageOf<T>(rules, packet, payload), attemptOf(attempt))
    })
  }

  respond<T>(
    pattern: string,
    handler: (request: MqttMessage<T>, run: MqttRun) => unknown,
    options: RespondOptions,
  ): MqttSubscription {
    const rules = handlerRules(pattern, resolveHandlerOptions(pattern, options, 'requests'), this.options)
    const { requester } = this.session
    const takesAtQos1 = rules.subscription.qos > 0
    const leave = takesAtQos1 ? requester.takesAtQos1(rules.template.topicFilter) : undefined
    const run = async (packet: PublishPacket, attempt: HandlerAttempt): Promise<void> => {
      const request = this.responder.receive(rules, packet, attempt)
      const result = await handler(messageOf<T>(rules, packet, request.data), attemptOf(attempt))
      await this.responder.respond(request, result)
    }
    return this.addHandler(rules, run, leave)
  }

  messages<T>(
    pattern: string,
    options: HandlerOptions,
    limits: Omit<StreamLimits, 'held' | 'onDropped'>,
    signal: AbortSignal | undefined,
  ): MessageStream<MqttMessage<T>> {
    const rules = this.rulesOf(pattern, options)
    const { dispatcher, events } = this.session
    const onDropped = (packet: object): void => {
      dispatcher.messages.count.droppedByLoop(packet)
      events.notice.tell({ type: 'inbound-dropped' })
    }
    const stream = new MessageStream<MqttMessage<T>>(
      { ...limits, held: dispatcher.messages.held, onDropped },
      () => {
        void subscription.unsubscribe()
        stopListening()
        signal?.removeEventListener('abort', leave)
      },
    )
    const end = (): void => stream.end()
    const leave = (): void => stream.leave()
    const subscription = this.add(rules, {
      // It waits for its loop, which must not occupy a slot of handlers that do work.
      isPassive: true,
      concurrency: Number.POSITIVE_INFINITY,
      orderKey: 'none',
      run: async (packet: PublishPacket) =>
        stream.push(
          messageOf<T>(rules, packet, decodePacket(rules.codec, packet)),
          packet.qos === 0 ? bytesOf(packet) : undefined,
          packet,
        ),
    })
    const stopListening = this.session.shutdown.onDrain(end)
    if (signal?.aborted) stream.end()
    signal?.addEventListener('abort', leave)
    return stream
  }

  private rulesOf(pattern: string, options: HandlerOptions): HandlerRules {
    return handlerRules(pattern, resolveHandlerOptions(pattern, options), this.options)
  }

  /** Adds a handler that receives no message after it was removed. */
  private addHandler(
    rules: HandlerRules,
    run: (packet: PublishPacket, attempt: HandlerAttempt) => unknown,
    onRemoved: () => void = () => {},
  ): MqttSubscription {
    let isRemoved = false
    const subscription = this.add(rules, {
      run: async (packet, attempt) => (isRemoved ? undefined : run(packet, attempt)),
    })
    const unsubscribe = (): Promise<void> => {
      if (!isRemoved) onRemoved()
      isRemoved = true
      return subscription.unsubscribe()
    }
    return { ...subscription, unsubscribe, [Symbol.asyncDispose]: async () => void unsubscribe() }
  }

  private add(
    rules: HandlerRules,
    fields: Pick<InboundHandler, 'run'> & Partial<InboundHandler>,
  ): Omit<MqttSubscription, typeof Symbol.asyncDispose> {
    const { topicFilter } = rules.template
    const handler = newHandler({
      ...rules.runRules,
      onFailed: ({ topic }, error) =>
        this.session.events.notice.tell({
          type: 'handler-failed',
          pattern: rules.template.pattern,
          topic: topic,
          error: error,
        }),
      ...fields,
    })
    const remove = this.session.addRoute(topicFilter, rules.subscription, handler)
    this.session.subscriptions.flush()
    return {
      whenGranted: wait => this.session.subscriptions.whenGranted(topicFilter.subscription, wait),
      unsubscribe: remove,
    }
  }
}

export function messageOf<T>(
  rules: Pick<HandlerRules, 'template'>,
  packet: PublishPacket,
  payload: unknown,
): MqttMessage<T> {
  const { topic, qos, retain, dup, properties = {} } = packet
  return {
    topic,
    // Seam: the caller names the type of what comes from outside, as with JSON.parse.
    payload: payload as T,
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
