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

/**
 * The text that a named wildcard of the handler's pattern took: `@TopicParam('deviceId')` for
 * `devices/+deviceId/telemetry`. Pipes may follow. Undefined for a name that the pattern does not have.
 */
export const TopicParam: (
  name: string,
  ...pipes: (Type<PipeTransform> | PipeTransform)[]
) => ParameterDecorator = createParamDecorator(
  (name: string, context: ExecutionContext): string | undefined => {
    const mqttContext: unknown = context.switchToRpc().getContext()
    return mqttContext instanceof MqttContext ? mqttContext.params[name] : undefined
  },
)
