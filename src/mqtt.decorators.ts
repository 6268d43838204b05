import {
  createParamDecorator,
  type ExecutionContext,
  Inject,
  type InjectionToken,
  type PipeTransform,
  type Type,
} from '@nestjs/common'
import { EventPattern, MessagePattern, Transport } from '@nestjs/microservices'
import type { PublishPacket } from './core/protocol/packets.js'
import type { TopicParams } from './core/topic/topic-filter.js'
import { MqttService } from './mqtt.service.js'
import { type HandlerOptions, handle } from './options/handler-options.js'
import { MqttClientProxy } from './transport/mqtt.client-proxy.js'
import { MqttContext } from './transport/mqtt.context.js'
import { MqttTransport } from './transport/mqtt.transport.js'

/** Nest shows tokens in the error for what it cannot inject, so they say what to import. */
const ofConnection = (what: string, name: string): string =>
  `${what} of MqttModule.forRoot({ name: '${name}', url })`

// Seam: for the connection without a name the token is the class, and Nest shows the name of the class.
for (const token of [MqttService, MqttClientProxy, MqttTransport])
  Object.defineProperty(token, 'name', { value: `${token.name} of MqttModule.forRoot({ url })` })

/** Injection token of the {@link MqttService} of a connection. */
export function mqttServiceToken(name?: string): InjectionToken<MqttService> {
  return name === undefined ? MqttService : ofConnection('MqttService', name)
}

/** Injection token of the {@link MqttTransport} of a connection. */
export function mqttTransportToken(name?: string): InjectionToken<MqttTransport> {
  return name === undefined ? MqttTransport : ofConnection('MqttTransport', name)
}

/** Injection token of the {@link MqttClientProxy} of a connection. */
export function mqttClientToken(name?: string): InjectionToken<MqttClientProxy> {
  return name === undefined ? MqttClientProxy : ofConnection('MqttClientProxy', name)
}

/**
 * Transport id of a connection, for the decorator of a handler that belongs to one of several:
 * `@EventPattern('a/b', mqttTransportId('edge'))`. Without a name it is `Transport.MQTT`, so that decorators
 * written for Nest's built-in transport bind to this one.
 */
export function mqttTransportId(name?: string): Transport | symbol {
  return name === undefined ? Transport.MQTT : Symbol.for(`nestjs-mqtt:${name}`)
}

/** Injects the `MqttService` of the connection with this name, or of the connection without a name. */
export const InjectMqtt = (name?: string): ParameterDecorator & PropertyDecorator =>
  Inject(mqttServiceToken(name))

/** Injects the `MqttClientProxy` of the connection with this name, or of the connection without a name. */
export const InjectMqttClient = (name?: string): ParameterDecorator & PropertyDecorator =>
  Inject(mqttClientToken(name))

/** Options of {@link OnMqttEvent} and {@link OnMqttRequest}: those of `handle()`, and the connection. */
export interface OnMqttOptions extends HandlerOptions {
  /** Name of the connection, if the application has several. @default the connection without a name */
  readonly connection?: string
}

/** What a decorator of this package has noted about its method. */
interface Decoration {
  readonly decorator: string
  readonly connection: string | undefined
}

const DECORATION = Symbol('nestjs-mqtt:decoration')

/** Returns what an `@OnMqtt…` decorator has noted about a method. */
export function decorationOf(method: unknown): Decoration | undefined {
  if (typeof method !== 'function') return undefined
  // Seam: only `decorate` writes this metadata.
  return Reflect.getMetadata(DECORATION, method) as Decoration | undefined
}

function decorate(decoration: Decoration, decorator: MethodDecorator): MethodDecorator {
  return (target, key, descriptor) => {
    if (typeof descriptor.value === 'function')
      Reflect.defineMetadata(DECORATION, decoration, descriptor.value)
    return decorator(target, key, descriptor)
  }
}

/**
 * Handles the events of a pattern, like `@EventPattern` with `handle()`, but for one connection only, on controllers and on
 * all other providers, and without a type argument under `strict`:
 * `@OnMqttEvent('devices/+deviceId/telemetry', { concurrency: 4 })`.
 * @throws MqttError `INVALID_OPTION` for an unknown option or an invalid value
 */
export function OnMqttEvent(
  pattern: string | readonly string[],
  { connection, ...options }: OnMqttOptions = {},
): MethodDecorator {
  const extras = handle(options)
  return decorate(
    { decorator: '@OnMqttEvent', connection },
    EventPattern<string | readonly string[]>(pattern, mqttTransportId(connection), extras),
  )
}

/**
 * Handles the requests of a pattern and responds with the result of the method, like `@MessagePattern` with `handle()`, but
 * for one connection only, on controllers and on all other providers: `@OnMqttRequest('devices/+deviceId/reboot')`.
 * @throws MqttError `INVALID_OPTION` for an unknown option or an invalid value
 */
export function OnMqttRequest(
  pattern: string | readonly string[],
  { connection, ...options }: OnMqttOptions = {},
): MethodDecorator {
  const extras = handle(options)
  return decorate(
    { decorator: '@OnMqttRequest', connection },
    MessagePattern<string | readonly string[]>(pattern, mqttTransportId(connection), extras),
  )
}

type Pipe = Type<PipeTransform> | PipeTransform

/** Reads from the context of the message; undefined if the method is called by something else than this transport. */
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

/** Passes the Topic Name of the message. */
export const MqttTopic = (...pipes: Pipe[]): ParameterDecorator => readTopic(...pipes)

/** Passes the PUBLISH packet of the message, a `PublishPacket`. */
export const MqttPacket = (...pipes: Pipe[]): ParameterDecorator => readPacket(...pipes)

/**
 * Passes the value of a User Property of the message (MQTT 5, 3.3.2.3.7): the first one if the message has several with this
 * name; undefined if it has none, as on MQTT 3.1.1.
 */
export const UserProperty = (name: string, ...pipes: Pipe[]): ParameterDecorator =>
  readUserProperty(name, ...pipes)

const TOPIC_PARAMS = Symbol('nestjs-mqtt:topic-params')

/**
 * Passes the value of a named wildcard of the handler's pattern, such as `@TopicParam('deviceId')` for
 * `devices/+deviceId/telemetry`. Pipes may follow the name. The application does not start, with the error
 * `INVALID_OPTION`, if the pattern has no wildcard with this name.
 */
export function TopicParam(name: string, ...pipes: Pipe[]): ParameterDecorator
/** The same, with a name that the compiler checks against the pattern: `@TopicParam(telemetry, 'deviceId')`. */
export function TopicParam<P extends string>(
  contract: { readonly pattern: P },
  name: keyof TopicParams<P> & string,
  ...pipes: Pipe[]
): ParameterDecorator
export function TopicParam(
  first: string | { readonly pattern: string },
  ...rest: (string | Pipe)[]
): ParameterDecorator {
  const [name, ...pipes] = typeof first === 'string' ? [first, ...rest] : rest
  const decorateParameter = readTopicParam(String(name), ...pipes.filter(pipe => typeof pipe !== 'string'))
  return (target, method, index) => {
    decorateParameter(target, method, index)
    if (method === undefined) return
    const names = [...topicParamsOf(target, method), String(name)]
    Reflect.defineMetadata(TOPIC_PARAMS, names, target, method)
  }
}

/** Returns the names in the `@TopicParam` decorators of a method. */
export function topicParamsOf(target: object, method: string | symbol): readonly string[] {
  // Seam: only `TopicParam` writes this metadata.
  return (Reflect.getMetadata(TOPIC_PARAMS, target, method) as readonly string[] | undefined) ?? []
}
