import { setMaxListeners } from 'node:events'
import { MqttError } from '../../core/errors.js'
import { bytesOf } from '../../core/inbound/open-messages.js'
import { readTopicParams, type TopicParams } from '../../core/topic/topic-filter.js'
import {
  type MessagesOptions,
  messagesSchema,
  type RespondOptions,
  type RetainedOptions,
  resolveRetained,
} from '../../options/client-options.js'
import { decodePacket, validPayload } from '../../options/codec.js'
import {
  type HandlerKind,
  type HandlerOptions,
  resolveHandlerOptions,
} from '../../options/handler-options.js'
import type { ResolvedOptions } from '../../options/resolved-options.js'
import { invalidOption, parseOptions } from '../../options/schema.js'
import {
  handlerOptionsOf,
  type TopicContract,
  type TopicPayload,
  type TopicResponseInput,
  type TopicSource,
} from '../../options/topic-contract.js'
import type { PublishPacket, PublishProperties } from '../connection/link.js'
import type { MqttSession } from '../mqtt-session.js'
import { Responder } from '../requests/responder.js'
import { RetainedCache } from '../subscriptions/retained-cache.js'
import type { WaitOptions } from '../waits.js'
import { type HandlerAttempt, type InboundHandler, newHandler } from './delivery.js'
import { assertHandler, type HandlerRules, handlerRules, sourceOf, withParamsOf } from './handler-rules.js'
import { deduped } from './inbox.js'
import { MAX_VALIDATION_MS, MessageStream, validatesInOrder, validWithin } from './message-stream.js'

/** A message, as passed to a handler that was added at run time. */
export interface MqttMessage<T = unknown, P = Readonly<Record<string, string>>> {
  readonly topic: string
  /** The decoded payload. */
  readonly payload: T
  /** Values of the named wildcards of the pattern. */
  readonly params: P
  readonly qos: 0 | 1 | 2
  /** Whether this is a retained message (MQTT 5, 3.3.1.3). */
  readonly retain: boolean
  /** Whether the broker may have delivered the message before (MQTT 5, 3.3.1.1). */
  readonly dup: boolean
  /** Properties of the PUBLISH (MQTT 5, 3.3.2.3); empty on MQTT 3.1.1. */
  readonly properties: PublishProperties
}

/** Messages for a `for await` loop. */
export interface MqttMessages<T, P = Readonly<Record<string, string>>>
  extends AsyncIterableIterator<MqttMessage<T, P>> {
  /** Number of QoS 0 messages that were dropped because `limit` messages waited. */
  readonly dropped: number
}

/** A message of a contract, with the types of its payload and parameters. */
export type ContractMessage<C extends TopicContract> = MqttMessage<TopicPayload<C>, TopicParams<C['pattern']>>

/** Messages of a contract for a `for await` loop. */
export type ContractMessages<C extends TopicContract> = MqttMessages<
  TopicPayload<C>,
  TopicParams<C['pattern']>
>

/** What a handler for requests on a contract returns: a response, or a source of responses. */
export type ContractResult<C extends TopicContract> =
  | TopicResponseInput<C>
  | Promise<TopicResponseInput<C> | AsyncIterable<TopicResponseInput<C>>>
  | AsyncIterable<TopicResponseInput<C>>

/** A message whose types the public methods name. */
type Message = MqttMessage<never, never>

/** A handler whose types the public methods check. */
export type Handler = (message: Message, run: MqttRun) => unknown

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

  subscribe(source: TopicSource, handler: Handler, options: HandlerOptions): MqttSubscription {
    const rules = this.rulesOf(source, options)
    assertHandler('subscribe', rules, handler)
    const { codec, payload: check } = rules
    const runValid = async (packet: PublishPacket, attempt: HandlerAttempt, valid: unknown) =>
      handler(messageOf(rules, packet, await valid), attemptOf(attempt))
    const run = (packet: PublishPacket, attempt: HandlerAttempt): unknown => {
      const payload = decodePacket(codec, packet)
      if (check !== undefined) return runValid(packet, attempt, validPayload(check, packet, payload))
      return handler(messageOf(rules, packet, payload), attemptOf(attempt))
    }
    const keyed = (packet: PublishPacket) => messageOf(rules, packet, decodePacket(codec, packet))
    const inbox = deduped(rules, handler.name, this.session, keyed, run)
    return this.addHandler(rules, inbox.run, {}, inbox.leave)
  }

  respond(source: TopicSource, handler: Handler, options: RespondOptions): MqttSubscription {
    const rules = this.rulesOf(source, options, 'requests')
    assertHandler('respond', rules, handler)
    const { requester } = this.session
    const takesAtQos1 = rules.subscription.qos > 0
    const leave = takesAtQos1 ? requester.takesAtQos1(rules.template.topicFilter) : undefined
    const run = async (packet: PublishPacket, attempt: HandlerAttempt): Promise<void> => {
      const request = this.responder.receive(rules, packet, attempt)
      const { payload: check } = rules
      const data = check === undefined ? request.data : await validPayload(check, packet, request.data)
      const result = await handler(messageOf(rules, packet, data), attemptOf(attempt))
      await this.responder.respond(request, result)
    }
    return this.addHandler(rules, run, { kind: 'request' }, leave)
  }

  messages(source: TopicSource, options: MessagesOptions): MessageStream<Message> {
    const owner = `messages of "${sourceOf(source).pattern}"`
    const checked = parseOptions(owner, messagesSchema, options)
    const { signal, limit, overflow, ...handlerOptions } = { ...options, ...checked }
    const rules = this.rulesOf(source, handlerOptions)
    if (rules.dedupe !== undefined) throw invalidOption(owner, 'dedupe is for handlers; remove it')
    const { dispatcher, events } = this.session
    const onDropped = (packet: object): void => {
      dispatcher.messages.count.droppedByLoop(packet)
      events.notice.emit({ type: 'inbound-dropped' })
    }
    const stream = new MessageStream<Message>(
      { limit, overflow, held: dispatcher.messages.held, onDropped },
      () => {
        void subscription.unsubscribe()
        stopListening()
        signal?.removeEventListener('abort', leave)
      },
    )
    const end = (): void => stream.end()
    const leave = (): void => stream.leave()
    const subscription = this.add(rules, {
      kind: 'loop',
      // It waits for its loop, which must not occupy a slot of handlers that do work.
      isPassive: true,
      concurrency: Number.POSITIVE_INFINITY,
      orderKey: 'none',
      run: pushInOrder(rules, stream),
    })
    const stopListening = this.session.shutdown.onIntakeEnd(end)
    if (signal?.aborted) stream.end()
    // Many loops may share one signal, so many listeners are not a leak.
    if (signal !== undefined) setMaxListeners(0, signal)
    signal?.addEventListener('abort', leave)
    return stream
  }

  /** @throws MqttError `INVALID_TOPIC_FILTER`, `INVALID_OPTION` */
  retained(source: TopicSource, options: RetainedOptions): RetainedCache<unknown> {
    const { pattern } = sourceOf(source)
    const { codec: own, ...limits } = resolveRetained(pattern, options)
    const defaults = { ...this.options, sharedGroup: undefined }
    const { template, codec, payload } = this.rulesOf(source, own && { codec: own }, 'events', defaults)
    const { sharedGroup } = template.topicFilter
    if (sharedGroup !== undefined) {
      const text = `retained messages of "${pattern}": the broker sends no retained messages to a Shared Subscription; remove "$share/${sharedGroup}/"`
      throw new MqttError('INVALID_OPTION', text)
    }
    return new RetainedCache(this.session, template.topicFilter, limits, packet => {
      const value = decodePacket(codec, packet)
      return payload === undefined ? value : validWithin(MAX_VALIDATION_MS, payload, packet, value)
    })
  }

  private rulesOf(
    source: TopicSource,
    options: HandlerOptions = {},
    kind: HandlerKind = 'events',
    defaults = this.options,
  ): HandlerRules {
    const { pattern, contract, isAddress } = sourceOf(source)
    const all = contract === undefined ? options : handlerOptionsOf(contract, options)
    const resolved = resolveHandlerOptions(pattern, all, kind)
    if (resolved.batch === undefined) {
      const rules = handlerRules(pattern, resolved, defaults, isAddress)
      return contract !== undefined && isAddress ? withParamsOf(contract, rules) : rules
    }
    const text = `handler of "${pattern}": batch is for handlers with a decorator, such as @OnMqttEvent; remove it`
    throw new MqttError('INVALID_OPTION', text)
  }

  /** Adds a handler that receives no message after it was removed. */
  private addHandler(
    rules: HandlerRules,
    run: (packet: PublishPacket, attempt: HandlerAttempt) => unknown,
    fields: Partial<InboundHandler> = {},
    onRemoved: () => void = () => {},
  ): MqttSubscription {
    let isRemoved = false
    const subscription = this.add(rules, {
      ...fields,
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
    const { topicFilter, pattern } = rules.template
    const handler = newHandler({
      ...rules.runRules,
      onFailed: ({ topic }, error) =>
        this.session.events.notice.emit({ type: 'handler-failed', pattern, topic, error }),
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

/** Returns a function that adds messages to a loop in the order in which they arrive, even if their validation takes time. */
function pushInOrder(rules: HandlerRules, stream: MessageStream<Message>): InboundHandler['run'] {
  const { codec, payload: check } = rules
  const push = (packet: PublishPacket, payload: unknown): Promise<void> =>
    stream.push(messageOf(rules, packet, payload), packet.qos === 0 ? bytesOf(packet) : undefined, packet)
  if (check === undefined) return async packet => push(packet, decodePacket(codec, packet))
  const validate = validatesInOrder(check, { name: rules.runRules.name, timeoutMs: MAX_VALIDATION_MS })
  return async packet => push(packet, await validate(packet, decodePacket(codec, packet)))
}

export function messageOf(
  rules: Pick<HandlerRules, 'template'>,
  packet: PublishPacket,
  payload: unknown,
): Message {
  const { topic, qos, retain, dup, properties = {} } = packet
  return {
    topic,
    // Seam: the caller or a schema names the types of what comes from outside, as with JSON.parse.
    payload: payload as never,
    params: readTopicParams(rules.template, topic) as never,
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
