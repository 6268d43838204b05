import type { InjectionToken } from '@nestjs/common'
import { Transport } from '@nestjs/microservices'
import { MqttService } from './mqtt.service.js'
import { MqttClientProxy } from './transport/mqtt.client-proxy.js'
import { MqttTransport } from './transport/mqtt.transport.js'

/** Injection token of the {@link MqttService} of a connection. */
export function mqttServiceToken(name?: string): InjectionToken<MqttService> {
  return name === undefined ? MqttService : `nestjs-mqtt:${name}:service`
}

/** Injection token of the {@link MqttTransport} of a connection. */
export function mqttTransportToken(name?: string): InjectionToken<MqttTransport> {
  return name === undefined ? MqttTransport : `nestjs-mqtt:${name}:transport`
}

/** Injection token of the {@link MqttClientProxy} of a connection. */
export function mqttClientToken(name?: string): InjectionToken<MqttClientProxy> {
  return name === undefined ? MqttClientProxy : `nestjs-mqtt:${name}:client`
}

/**
 * Transport id of a connection, for the decorator of a handler that belongs to one of several:
 * `@EventPattern('a/b', mqttTransportId('edge'))`. Without a name it is `Transport.MQTT`, so that decorators
 * written for Nest's built-in transport bind to this one.
 */
export function mqttTransportId(name?: string): Transport | symbol {
  return name === undefined ? Transport.MQTT : Symbol.for(`nestjs-mqtt:${name}`)
}
