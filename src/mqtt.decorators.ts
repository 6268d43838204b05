import {
  createParamDecorator,
  type ExecutionContext,
  Inject,
  type InjectionToken,
  type PipeTransform,
  type Type,
} from '@nestjs/common'
import type { ModulesContainer } from '@nestjs/core'
import { Transport } from '@nestjs/microservices'
import { MqttError } from './core/errors.js'
import { MqttService } from './mqtt.service.js'
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

const TOPIC_PARAMS = Symbol('nestjs-mqtt:topic-params')

const readTopicParam: (
  name: string,
  ...pipes: (Type<PipeTransform> | PipeTransform)[]
) => ParameterDecorator = createParamDecorator(
  (name: string, context: ExecutionContext): string | undefined => {
    const mqttContext: unknown = context.switchToRpc().getContext()
    return mqttContext instanceof MqttContext ? mqttContext.params[name] : undefined
  },
)

/**
 * Passes the value of a named wildcard of the handler's pattern, such as `@TopicParam('deviceId')` for
 * `devices/+deviceId/telemetry`. Pipes may follow the name. The application does not start, with the error
 * `INVALID_OPTION`, if the pattern has no wildcard with this name.
 */
export function TopicParam(
  name: string,
  ...pipes: (Type<PipeTransform> | PipeTransform)[]
): ParameterDecorator {
  const decorate = readTopicParam(name, ...pipes)
  return (target, method, index) => {
    decorate(target, method, index)
    if (method === undefined) return
    Reflect.defineMetadata(TOPIC_PARAMS, [...topicParamsOf(target, method), name], target, method)
  }
}

/** Returns the names in the `@TopicParam` decorators of a method. */
function topicParamsOf(target: object, method: string | symbol): readonly string[] {
  // Seam: only `TopicParam` writes this metadata.
  return (Reflect.getMetadata(TOPIC_PARAMS, target, method) as readonly string[] | undefined) ?? []
}

/** Metadata keys of `@EventPattern` and `@MessagePattern`. Nest does not export them. */
const PATTERN = 'microservices:pattern'
const TRANSPORT = 'microservices:transport'

/** A controller method with `@EventPattern` or `@MessagePattern`. */
interface PatternHandler {
  /** Name in the form `Controller.method`. */
  readonly name: string
  readonly patterns: readonly unknown[]
  /** Names in its `@TopicParam` decorators. */
  readonly topicParams: readonly string[]
}

/** Returns the controller methods that a transport with this id would handle. */
export function findPatternHandlers(
  modules: ModulesContainer,
  transportId: Transport | symbol,
): PatternHandler[] {
  return [...modules.values()]
    .flatMap(module => [...module.controllers.values()])
    .flatMap(controller => handlersOf(controller.metatype, transportId))
}

/**
 * Checks that every `@TopicParam` names a wildcard of its pattern. Otherwise it would be undefined for every message.
 * @param wildcardsOf returns the wildcards of a pattern, or undefined if the pattern cannot be checked
 * @throws MqttError `INVALID_OPTION`
 */
export function assertTopicParams(
  handlers: readonly PatternHandler[],
  wildcardsOf: (pattern: unknown) => readonly string[] | undefined,
): void {
  for (const { name, patterns, topicParams } of handlers) {
    const wildcards = patterns.map(wildcardsOf)
    if (wildcards.includes(undefined)) continue
    const known = new Set(wildcards.flatMap(names => names ?? []))
    const unknown = topicParams.find(param => !known.has(param))
    if (unknown === undefined) continue
    const list = [...known].map(param => `"${param}"`).join(', ')
    throw new MqttError(
      'INVALID_OPTION',
      `${name}: @TopicParam('${unknown}') is not a named wildcard of ${patterns.map(pattern => JSON.stringify(pattern)).join(', ')}; ${known.size === 0 ? `add a named wildcard to the pattern, such as "+${unknown}"` : `use one of ${list}`}`,
    )
  }
}

function handlersOf(controller: unknown, transportId: Transport | symbol): PatternHandler[] {
  if (typeof controller !== 'function') return []
  const prototype: unknown = controller.prototype
  if (typeof prototype !== 'object' || prototype === null) return []
  return Object.entries(Object.getOwnPropertyDescriptors(prototype))
    .filter(([, { value }]) => isHandler(value, transportId))
    .map(([method, { value }]) => ({
      name: `${controller.name}.${method}`,
      patterns: [Reflect.getMetadata(PATTERN, value)].flat(),
      topicParams: topicParamsOf(prototype, method),
    }))
}

function isHandler(method: unknown, transportId: Transport | symbol): boolean {
  if (typeof method !== 'function' || !Reflect.hasMetadata(PATTERN, method)) return false
  const transport: unknown = Reflect.getMetadata(TRANSPORT, method)
  return transport === undefined || transport === transportId
}
