import {
  createParamDecorator,
  type ExecutionContext,
  Inject,
  type PipeTransform,
  type Type,
} from '@nestjs/common'
import { mqttClientToken, mqttServiceToken } from './mqtt.tokens.js'
import { MqttContext } from './transport/mqtt.context.js'

/** Injects the `MqttService` of the connection with this name; without a name that of the unnamed one. */
export const InjectMqtt = (name?: string): ParameterDecorator & PropertyDecorator =>
  Inject(mqttServiceToken(name))

/** Injects the `MqttClientProxy` of the connection with this name. */
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
 * Passes the text that a named wildcard of the handler's pattern matched: `@TopicParam('deviceId')` for
 * `devices/+deviceId/telemetry`. Pipes may follow. A name that the pattern does not have fails the start with
 * `INVALID_OPTION`.
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

/** The names that the `@TopicParam` decorators of a method ask for. */
export function topicParamsOf(target: object, method: string | symbol): readonly string[] {
  // Seam: written above, and nowhere else.
  return (Reflect.getMetadata(TOPIC_PARAMS, target, method) as readonly string[] | undefined) ?? []
}
