import {
  type CustomTransportStrategy,
  type MessageHandler,
  Server,
  type Transport,
} from '@nestjs/microservices'
import { isObservable } from 'rxjs'
import type { PublishPacket } from '../client/connection/link.js'
import { Batches } from '../client/inbound/batches.js'
import { type HandlerAttempt, type InboundHandler, newHandler } from '../client/inbound/delivery.js'
import { type HandlerRules, handlerRules } from '../client/inbound/handler-rules.js'
import { deduped } from '../client/inbound/inbox.js'
import { validatesInOrder } from '../client/inbound/message-stream.js'
import { type MqttMessage, messageOf } from '../client/inbound/subscriber.js'
import type { MqttSession } from '../client/mqtt-session.js'
import { type ReceivedRequest, Responder } from '../client/requests/responder.js'
import type { ConnectionState } from '../core/connection/connection-state.js'
import { describeCause, MqttError } from '../core/errors.js'
import { unwrapEvent } from '../core/requests/request-rules.js'
import { fillVariables, parseTopicTemplate } from '../core/topic/topic-filter.js'
import { decodePacket, validPayload } from '../options/codec.js'
import { type BatchOptions, type HandlerKind, resolveHandlerOptions } from '../options/handler-options.js'
import type { ResolvedOptions } from '../options/resolved-options.js'
import { MqttBatchContext, MqttContext } from './mqtt.context.js'
import {
  assertLiteral,
  assertRoutable,
  exposeReasons,
  type GlobalEnhancers,
  isRoutable,
  methodOf,
  warnOfColon,
} from './mqtt.handler-checks.js'
import { NEST_RESULTS, untilComplete } from './mqtt.results.js'

/** Key in the extras of the handler for messages that no other handler matches. */
export const UNMATCHED = Symbol('nestjs-mqtt:unmatched')

interface Route extends HandlerRules {
  readonly callback: MessageHandler
}

/** Name of a connection state, as in `status` of Nest. */
export type MqttStatus = ConnectionState['status']

/** Events of `app.on` for a microservice on this transport. */
export interface MqttTransportEvents extends Record<string, (state: ConnectionState) => void> {
  /** Called with each new state of the connection. */
  state: (state: ConnectionState) => void
}

/**
 * The transport strategy: it binds `@EventPattern` and `@MessagePattern` methods to topics of one connection. `MqttModule`
 * creates it, and `MqttModule.microservice()` passes it to Nest.
 */
export class MqttTransport
  extends Server<MqttTransportEvents, MqttStatus>
  implements CustomTransportStrategy
{
  /** Whether the application has passed this strategy to Nest. */
  isConnectedToApp = false
  /** Whether Nest has started this strategy. */
  isListening = false
  private readonly plainStartHook = this.onProcessingStartHook
  private readonly responder: Responder

  constructor(
    private readonly session: MqttSession,
    private readonly options: ResolvedOptions,
    transportId: Transport | symbol,
    private readonly globals?: GlobalEnhancers,
  ) {
    super()
    // This strategy reports the failures of event handlers. Only Nest 12 declares the property.
    Object.assign(this, { propagatesEventHandlerErrors: true })
    this.transportId = transportId
    exposeReasons()
    this.responder = new Responder(session, NEST_RESULTS)
    session.connection.attach({ stateChanged: state => this._status$.next(state.status) })
  }

  /**
   * Called by Nest for every handler. All handlers of a pattern run. Nest converts a pattern that is an object or a number to
   * JSON with sorted keys; this is the Topic Name, without wildcards and variables.
   * @throws MqttError `INVALID_TOPIC_FILTER` for an invalid pattern, `INVALID_OPTION` for invalid handler options
   */
  override addHandler(
    pattern: unknown,
    callback: MessageHandler,
    isEventHandler = false,
    extras: Record<string, unknown> = {},
  ): void {
    const { route, isLiteral, rules } = this.rulesOf(pattern, extras, isEventHandler ? 'events' : 'requests')
    callback.isEventHandler = isEventHandler
    callback.extras = extras
    // Only for code that lists the handlers that Nest knows. The session routes the messages.
    if (!(UNMATCHED in extras)) this.messageHandlers.set(route, callback)
    const bound: Route = { ...rules, callback }
    const runs =
      rules.batch === undefined
        ? { run: this.runOf(bound, isEventHandler) }
        : this.batchRuns(bound, rules.batch)
    const keyed = (packet: PublishPacket) => messageOf(rules, packet, this.dataOf(rules, packet))
    const handler = newHandler({
      ...rules.runRules,
      kind: isEventHandler ? 'event' : 'request',
      ...runs,
      run: deduped(rules, methodOf(extras), this.session, keyed, runs.run).run,
      onFailed: ({ topic }, error) =>
        this.session.events.notice.emit({ type: 'handler-failed', pattern: route, topic, error }),
    })
    this.globals?.handlerAdded()
    if (UNMATCHED in extras) return this.session.routes.addFallback(handler)
    this.session.addRoute(rules.template.topicFilter, rules.subscription, handler)
    if (!isEventHandler && rules.subscription.qos > 0)
      this.session.requester.takesAtQos1(rules.template.topicFilter)
    if (!isLiteral) warnOfColon(route, rules.template.topicFilter.levels, this.session.log)
  }

  /**
   * Checks the pattern and the options of a handler.
   * @internal
   * @throws MqttError `INVALID_TOPIC_FILTER`, `INVALID_OPTION`
   */
  rulesOf(pattern: unknown, extras: unknown, kind: HandlerKind) {
    assertRoutable(pattern, 'INVALID_TOPIC_FILTER')
    const route = this.normalizePattern(pattern)
    const isLiteral = typeof pattern !== 'string'
    if (isLiteral) assertLiteral(route)
    const options = resolveHandlerOptions(route, extras, kind)
    return { route, isLiteral, rules: handlerRules(route, options, this.options, isLiteral) }
  }

  /** Returns the names of the wildcards of a pattern. Undefined for an invalid pattern, which `addHandler` rejects. */
  wildcardsOf(pattern: unknown): readonly string[] | undefined {
    if (typeof pattern !== 'string') return []
    try {
      const template = parseTopicTemplate(fillVariables(pattern, this.options.variables))
      return template.params.map(({ name }) => name)
    } catch {
      return undefined
    }
  }

  /** Connects and subscribes. With `fail-fast`, calls back with the error of the first round or of a refused filter. */
  listen(callback: (error?: unknown) => void): void {
    this.isListening = true
    this.globals?.check()
    this.session.listen().then(
      () => callback(),
      error => callback(error),
    )
  }

  /** Stops receiving messages and waits for running handlers. The module closes the connection. */
  close(): Promise<void> {
    return this.session.drain()
  }

  override on<Event extends keyof MqttTransportEvents>(
    event: Event,
    callback: MqttTransportEvents[Event],
  ): void {
    if (event !== 'state')
      throw new MqttError('INVALID_OPTION', `unknown event "${String(event)}"; use "state"`)
    this.session.connection.attach({ stateChanged: state => callback(state) })
  }

  /** Returns the `mqtt` client of the current connection. @throws MqttError `CONNECTION_LOST` without a connection */
  override unwrap<T>(): T {
    return this.session.connection.unwrap<T>()
  }

  /** A batch is one call of the handler. Each of its messages is decoded and acknowledged on its own. */
  private batchRuns({ callback, ...route }: Route, limits: Required<BatchOptions>) {
    const batches = new Batches<MqttMessage>(
      this.session.dispatcher,
      route,
      limits,
      (messages, attempt, signal) => {
        const context = new MqttBatchContext(messages, route.template, attempt, signal)
        const payloads = messages.map(({ payload }) => payload)
        return this.runWithHooks(context, async () =>
          untilComplete(await callback(payloads, context), attempt),
        )
      },
    )
    const { payload, runRules } = route
    const validate = payload && validatesInOrder(payload, runRules)
    const run = async (packet: PublishPacket, attempt: HandlerAttempt): Promise<void> => {
      let data = this.dataOf(route, packet)
      if (validate !== undefined) data = await validate(packet, data)
      await batches.push(messageOf(route, packet, data), packet, attempt)
    }
    return { ...batches.memberRules, run }
  }

  /** The data of an event. */
  private dataOf({ codec }: HandlerRules, packet: PublishPacket): unknown {
    const data = decodePacket(codec, packet)
    return this.options.envelope === 'all' ? unwrapEvent(packet.topic, data, this.routeOf).data : data
  }

  /** One function for all that a message goes through, since most messages expect no response. */
  private runOf(route: Route, isEvent: boolean): InboundHandler['run'] {
    const { callback, codec, payload, template } = route
    return async (packet, attempt) => {
      const request = isEvent ? undefined : this.responder.receive(route, packet, attempt)
      let data = request === undefined ? decodePacket(codec, packet) : request.data
      let metadata = request?.metadata
      if (request?.target === undefined && this.options.envelope === 'all')
        ({ data, metadata } = unwrapEvent(packet.topic, data, this.routeOf))
      if (payload !== undefined) data = await validPayload(payload, packet, data)
      const context = new MqttContext(packet, template, attempt, metadata)
      if (this.onProcessingStartHook !== this.plainStartHook || this.onProcessingEndHook !== undefined)
        return this.runWithHooks(context, async () =>
          this.finish(request, await callback(data, context), attempt),
        )
      const result: unknown = await callback(data, context)
      if (request?.target !== undefined || isObservable(result)) await this.finish(request, result, attempt)
    }
  }

  /** Sends the result of a handler if a response is expected. Resolves when the message is handled. */
  private finish(
    request: ReceivedRequest | undefined,
    result: unknown,
    attempt: HandlerAttempt,
  ): Promise<void> {
    if (request?.target === undefined) return untilComplete(result, attempt)
    return this.responder.respond(request, result)
  }

  /** Returns the topic of a pattern in an envelope. The pattern may be any value. */
  private readonly routeOf = (pattern: unknown): string | undefined =>
    isRoutable(pattern) ? this.normalizePattern(pattern) : undefined

  private runWithHooks<T>(context: MqttContext | MqttBatchContext, work: () => Promise<T>): Promise<T> {
    const id = this.transportId
    if (id === undefined) return work()
    return new Promise((resolve, reject) => {
      const done = async (): Promise<void> => {
        await work().then(resolve, reject)
        try {
          this.onProcessingEndHook?.(id, context)
        } catch (error) {
          this.session.log.error(`the processing end hook failed: ${describeCause(error)}`)
        }
      }
      this.onProcessingStartHook(id, context, done)
    })
  }
}

/** Transport of an application in preview mode (`preview: true`). It registers handlers and never connects. */
export class PreviewTransport extends Server implements CustomTransportStrategy {
  constructor(transportId: Transport | symbol) {
    super()
    this.transportId = transportId
  }

  listen(callback: () => void): void {
    callback()
  }

  close(): void {}

  override on(): void {}

  override unwrap<T>(): T {
    throw new Error('there is no connection in preview mode')
  }
}
