import {
  createParamDecorator,
  type ExecutionContext,
  Inject,
  type PipeTransform,
  type Type,
} from '@nestjs/common'
import { mqttClientToken, mqttServiceToken } from './mqtt.tokens.js'
import { MqttContext } from './transport/mqtt.context.js'

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
export function topicParamsOf(target: object, method: string | symbol): readonly string[] {
  // Seam: only `TopicParam` writes this metadata.
  return (Reflect.getMetadata(TOPIC_PARAMS, target, method) as readonly string[] | undefined) ?? []
}
