import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { diag } from '@opentelemetry/api'
import { MQTT_CHANNELS, type MqttChannelMessages } from '../client/events.js'

type Name = keyof MqttChannelMessages

/** Subscribes to a channel of the client. An error of `take` is logged. @returns a function that unsubscribes */
export function listen<N extends Name>(name: N, take: (event: MqttChannelMessages[N]) => void): () => void {
  const receive = (event: unknown): void => {
    try {
      // Seam: only this package publishes to its channels.
      take(event as MqttChannelMessages[N])
    } catch (error) {
      diag.error('nestjs-mqtt: an event could not be recorded', error)
    }
  }
  subscribe(MQTT_CHANNELS[name], receive)
  return () => unsubscribe(MQTT_CHANNELS[name], receive)
}
