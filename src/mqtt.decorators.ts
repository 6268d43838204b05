import { createParamDecorator, type ExecutionContext, type PipeTransform, type Type } from '@nestjs/common'
import { EventPattern, MessagePattern, type MqttRecord } from '@nestjs/microservices'
import type { Observable } from 'rxjs'
import type { MqttMessage } from './client/inbound/subscriber.js'
import type { ConnectedSession } from './core/connection/connection-state.js'
import type { MqttError } from './core/errors.js'
import type { PublishPacket } from './core/protocol/packets.js'
import type { TopicParams } from './core/topic/topic-filter.js'
import { mqttTransportId } from './mqtt.service.js'
import { type BatchOptions, checkedHandlerOptions, type HandlerOptions } from './options/handler-options.js'
import {
  handlerOptionsOf,
  isContract,
  type TopicContract,
  type TopicPayload,
  type TopicResponseInput,
} from './options/topic-contract.js'
import { MqttBatchContext, MqttContext } from './transport/mqtt.context.js'
import type { Parameter } from './transport/mqtt.handler-checks.js'
import { UNMATCHED } from './transport/mqtt.transport.js'

/** Options of {@link OnMqttEvent} and {@link OnMqttRequest}: those of `handle()`, and the connection. */
export interface OnMqttOptions extends HandlerOptions {
  /** Name of the connection, if the application has several. @default the connection without a name */
  readonly connection?: string
}

/** What a decorator of this package has noted about its method. */
interface Decoration {
  readonly decorator: `@OnMqtt${string}`
  readonly connection: string | undefined
  readonly contract?: TopicContract
}

const DECORATIONS = Symbol('nestjs-mqtt:decorations')

/** Returns what the `@OnMqtt…` decorators have noted about a method. */
export function decorationsOf(method: unknown): readonly Decoration[] {
  if (typeof method !== 'function') return []
  // Seam: only `note` writes this metadata.
  return (Reflect.getMetadata(DECORATIONS, method) as readonly Decoration[] | undefined) ?? []
}

function note(decoration: Decoration, method: unknown): void {
  if (typeof method === 'function')
    Reflect.defineMetadata(DECORATIONS, [...decorationsOf(method), decoration], method)
}

/** @param create creates the decorator of Nest; `owner` names the method in errors */
function decorate(decoration: Decoration, create: (owner: string) => MethodDecorator): MethodDecorator {
  return (target, key, descriptor) => {
    const decorator = create(`${target.constructor.name}.${String(key)}: ${decoration.decorator}`)
    note(decoration, descriptor.value)
    return decorator(target, key, descriptor)
  }
}

/** A method that is given these values first, or reads something else first, which the compiler cannot check. */
type Takes<Value, Context> = unknown extends Value
  ? (...parameters: never[]) => unknown
  :
      | ((payload: Value, ...others: never[]) => unknown)
      | (Context extends unknown ? (context: Context, ...others: never[]) => unknown : never)
      | ((text: string, ...others: never[]) => unknown)

/** What a method may return to respond with values of this type. */
type Response<Value> = Value | Observable<Value> | AsyncIterable<Value> | MqttRecord<Value>
type Responds<Value> = (...parameters: never[]) => Response<Value> | Promise<Response<Value>>

type Payloads<C extends TopicContract> = unknown extends TopicPayload<C> ? unknown : TopicPayload<C>[]

/** A decorator for methods of this type. */
export type MethodDecoratorFor<Method> = <M extends Method>(
  target: object,
  key: string | symbol,
  descriptor: TypedPropertyDescriptor<M>,
) => void

type Source = string | readonly string[] | TopicContract

function patternOf(source: Source): string | readonly string[] {
  return isContract(source) ? source.pattern : source
}

function noted(
  decorator: Decoration['decorator'],
  connection: string | undefined,
  source: Source,
): Decoration {
  return isContract(source) ? { decorator, connection, contract: source } : { decorator, connection }
}

/** @throws MqttError `INVALID_OPTION` */
function extrasOf(owner: string, source: Source, options: HandlerOptions): HandlerOptions {
  return checkedHandlerOptions(owner, isContract(source) ? handlerOptionsOf(source, options) : options)
}

/**
 * Handles the events of a contract or a pattern, like `@EventPattern` with `handle()`, but for one connection only, on
 * controllers and on all other providers, and without a type argument under `strict`:
 * `@OnMqttEvent(telemetry, { concurrency: 4 })`, `@OnMqttEvent('devices/+deviceId/telemetry')`.
 *
 * QoS, codec and schema of a contract apply, unless the options say otherwise. The compiler checks that the first parameter of
 * the method takes the payload of the contract, or with `batch` a list of payloads; a first parameter of the type `string` or
 * `MqttContext` is not checked.
 * @throws MqttError `INVALID_OPTION` for an unknown option or an invalid value
 */
export function OnMqttEvent<C extends TopicContract>(
  contract: C,
  options: OnMqttOptions & { readonly batch: BatchOptions },
): MethodDecoratorFor<Takes<Payloads<C>, MqttBatchContext | readonly MqttMessage[]>>
export function OnMqttEvent<C extends TopicContract>(
  contract: C,
  options?: OnMqttOptions & { readonly batch?: never },
): MethodDecoratorFor<Takes<TopicPayload<C>, MqttContext>>
export function OnMqttEvent(pattern: string | readonly string[], options?: OnMqttOptions): MethodDecorator
export function OnMqttEvent(source: Source, { connection, ...options }: OnMqttOptions = {}): MethodDecorator {
  return decorate(noted('@OnMqttEvent', connection, source), owner =>
    EventPattern<unknown>(patternOf(source), mqttTransportId(connection), extrasOf(owner, source, options)),
  )
}

/**
 * Handles the requests of a contract or a pattern and responds with the result of the method, like `@MessagePattern` with
 * `handle()`, but for one connection only, on controllers and on all other providers:
 * `@OnMqttRequest('devices/+deviceId/reboot')`. The compiler checks the first parameter as for {@link OnMqttEvent}, and that the
 * method returns the response of the contract: as a value, a promise, an Observable or an async iterable.
 * @throws MqttError `INVALID_OPTION` for an unknown option or an invalid value
 */
export function OnMqttRequest<C extends TopicContract>(
  contract: C,
  options?: OnMqttOptions & { readonly batch?: never },
): MethodDecoratorFor<Takes<TopicPayload<C>, MqttContext> & Responds<TopicResponseInput<C>>>
export function OnMqttRequest(pattern: string | readonly string[], options?: OnMqttOptions): MethodDecorator
export function OnMqttRequest(
  source: Source,
  { connection, ...options }: OnMqttOptions = {},
): MethodDecorator {
  return decorate(noted('@OnMqttRequest', connection, source), owner =>
    MessagePattern<unknown>(patternOf(source), mqttTransportId(connection), extrasOf(owner, source, options)),
  )
}

/** Options of {@link OnMqttUnmatched}: those of handlers that do not belong to the subscription. */
export type OnMqttUnmatchedOptions = Omit<
  OnMqttOptions,
  'qos' | 'sharedGroup' | 'noLocal' | 'retainHandling' | 'batch'
>

/**
 * Handles the messages that the broker has delivered and that no other handler of the connection matches, such as those of a
 * subscription in a persistent session that the application no longer has. A connection may have one such handler, on a
 * controller or another provider. It does not subscribe to anything. A QoS 1 message is acknowledged after the handler has
 * finished.
 * @throws MqttError `INVALID_OPTION` for an unknown option or an invalid value
 */
export function OnMqttUnmatched({ connection, ...options }: OnMqttUnmatchedOptions = {}): MethodDecorator {
  return decorate({ decorator: '@OnMqttUnmatched', connection }, owner =>
    EventPattern<string>('#', mqttTransportId(connection), {
      ...checkedHandlerOptions(owner, options),
      [UNMATCHED]: true,
    }),
  )
}

/** Options of the decorators for events of a connection. */
export interface OnMqttConnectionOptions {
  /** Name of the connection, if the application has several. @default the connection without a name */
  readonly connection?: string
}

/**
 * Calls the method, on a controller or another provider, with the session after every successful connection, once all
 * modules are initialized. The connection does not wait for it. An error is logged.
 */
export function OnMqttConnect({
  connection,
}: OnMqttConnectionOptions = {}): MethodDecoratorFor<(session: ConnectedSession) => unknown> {
  return (_target, _key, { value }) => note({ decorator: '@OnMqttConnect', connection }, value)
}

/**
 * Calls the method, on a controller or another provider, with the cause when a connection has ended; without a cause if the
 * application closed it. An error is logged.
 */
export function OnMqttDisconnect({
  connection,
}: OnMqttConnectionOptions = {}): MethodDecoratorFor<(cause: MqttError | undefined) => unknown> {
  return (_target, _key, { value }) => note({ decorator: '@OnMqttDisconnect', connection }, value)
}

/**
 * Calls the method, on a controller or another provider, with the new session if the broker no longer had the session after
 * a reconnect (`clean: false` only): messages that it stored are lost. An error is logged.
 */
export function OnMqttSessionLost({
  connection,
}: OnMqttConnectionOptions = {}): MethodDecoratorFor<(session: ConnectedSession) => unknown> {
  return (_target, _key, { value }) => note({ decorator: '@OnMqttSessionLost', connection }, value)
}

type Pipe = Type<PipeTransform> | PipeTransform

const PARAMETERS = Symbol('nestjs-mqtt:parameters')

/** Returns the parameter decorators of this package of a method. */
export function parametersOf(target: object, method: string | symbol): readonly Parameter[] {
  // Seam: only `parameter` writes this metadata.
  return (Reflect.getMetadata(PARAMETERS, target, method) as readonly Parameter[] | undefined) ?? []
}

function parameter(noted: Parameter, decorator: ParameterDecorator): ParameterDecorator {
  return (target, method, index) => {
    decorator(target, method, index)
    if (method !== undefined)
      Reflect.defineMetadata(PARAMETERS, [...parametersOf(target, method), noted], target, method)
  }
}

/** Reads from the context of a message; undefined if something else than this transport calls the method. */
function fromContext<D, V>(read: (context: MqttContext, data: D) => V) {
  return createParamDecorator((data: D, context: ExecutionContext): V | undefined => {
    const mqttContext: unknown = context.switchToRpc().getContext()
    return mqttContext instanceof MqttContext ? read(mqttContext, data) : undefined
  })
}

const readTopic = fromContext(({ topic }) => topic)
const readPacket = fromContext((context): PublishPacket => context.getPacket())
const readUserProperty = fromContext((context, name: string) => context.userProperty(name))
const readTopicParam = fromContext((context, name: string) => context.params[name])
const readBatch = createParamDecorator((_data: unknown, context: ExecutionContext) => {
  const batch: unknown = context.switchToRpc().getContext()
  return batch instanceof MqttBatchContext ? batch.messages : undefined
})

/** Passes the Topic Name of the message. */
export const MqttTopic = (...pipes: Pipe[]): ParameterDecorator =>
  parameter({ decorator: '@MqttTopic()' }, readTopic(...pipes))

/** Passes the PUBLISH packet of the message, a `PublishPacket`. */
export const MqttPacket = (...pipes: Pipe[]): ParameterDecorator =>
  parameter({ decorator: '@MqttPacket()' }, readPacket(...pipes))

/** Passes the messages of a batch, `readonly MqttMessage[]`, to a handler with the option `batch`. */
export const MqttBatch = (...pipes: Pipe[]): ParameterDecorator =>
  parameter({ decorator: '@MqttBatch()', isOfBatch: true }, readBatch(...pipes))

/**
 * Passes the value of a User Property of the message (MQTT 5, 3.3.2.3.7): the first one if the message has several with this
 * name; undefined if it has none, as on MQTT 3.1.1.
 */
export const UserProperty = (name: string, ...pipes: Pipe[]): ParameterDecorator =>
  parameter({ decorator: `@UserProperty('${name}')` }, readUserProperty(name, ...pipes))

/** One signature instead of overloads, so that the compiler names the parameters of the contract if the name is wrong. */
type TopicParamRest<S> = S extends { readonly pattern: infer P extends string }
  ? [name: keyof TopicParams<P> & string, ...pipes: Pipe[]]
  : Pipe[]

/**
 * Passes the value of a named wildcard of the handler's pattern, such as `@TopicParam('deviceId')` for
 * `devices/+deviceId/telemetry`. With a contract, as in `@TopicParam(telemetry, 'deviceId')`, the compiler checks the name. Pipes
 * may follow the name. The application does not start, with the error
 * `INVALID_OPTION`, if the pattern has no wildcard with this name.
 */
export function TopicParam<S extends string | { readonly pattern: string }>(
  source: S,
  ...nameAndPipes: TopicParamRest<S>
): ParameterDecorator
export function TopicParam(
  first: string | { readonly pattern: string },
  ...rest: (string | Pipe)[]
): ParameterDecorator {
  const [name, ...others] = typeof first === 'string' ? [first, ...rest] : rest
  const topicParam = String(name)
  const pipes = others.filter(pipe => typeof pipe !== 'string')
  return parameter(
    { decorator: `@TopicParam('${topicParam}')`, topicParam },
    readTopicParam(topicParam, ...pipes),
  )
}
