import { expect } from 'vitest'
import type { PublishPacket } from '../../src/client/connection/link.js'
import { MqttService } from '../../src/mqtt.service.js'
import type { MqttModuleOptions } from '../../src/options/options.js'
import type { PeerConnection, ScriptedPeer } from '../../src/testing/index.js'
import { pass, RECONNECT_MS } from './publisher-on-peer.js'
import { message, sessionOnPeer } from './session-on-peer.js'

type Connack = Parameters<ScriptedPeer['accept']>[0]

export const VERSIONS = [4, 5] as const

/** Options of a connection whose session the broker keeps. */
export const KEPT = { clean: false, clientId: 'kept' } as const

/** A connected session whose handlers run, under a clock that the test holds. */
export async function subscriberOnPeer(options: MqttModuleOptions = {}, connack: Connack = {}) {
  const complete: MqttModuleOptions = {
    connect: 'background',
    reconnect: { delayMs: [RECONNECT_MS], resetAfterMs: 0 },
    drainTimeoutMs: 0,
    ...options,
  }
  const { peer, session, log } = sessionOnPeer(complete)
  const mqtt = new MqttService(session)
  await session.listen()
  const connection = await peer.accept(connack)
  await session.connection.whenConnected()
  return { peer, session, log, mqtt, connection }
}

export type SubscriberOnPeer = Awaited<ReturnType<typeof subscriberOnPeer>>

/** A message whose payload every codec takes. */
export function json(topic: string, value: unknown, fields: Partial<PublishPacket> = {}): PublishPacket {
  return message(topic, { payload: JSON.stringify(value), ...fields })
}

/** A request on MQTT 5 for a stream of responses on the topic "to". */
export function streamRequest(topic: string, value: unknown = 0): PublishPacket {
  const properties = {
    responseTopic: 'to',
    correlationData: Buffer.from([1]),
    userProperties: { stream: 'true' },
  }
  return json(topic, value, { properties })
}

/** A message like that of `json`, at QoS 1. */
export function qos1(topic: string, messageId: number, value: unknown = messageId, dup = false) {
  return json(topic, value, { qos: 1, messageId, dup })
}

/** Packet Identifiers of the PUBACK packets that arrived, in order. */
export function acks(connection: PeerConnection): (number | undefined)[] {
  return connection.received.flatMap(packet => (packet.cmd === 'puback' ? [packet.messageId] : []))
}

/** How many packets of a kind arrived. */
export function countOf(connection: PeerConnection, cmd: string): number {
  return connection.received.filter(packet => packet.cmd === cmd).length
}

/** Every received message is in exactly one of the counters. */
function expectInboundAddsUp(mqtt: MqttService): void {
  const { received, handled, deadLettered, dropped, givenBack, repeated, duplicates, waiting, running } =
    mqtt.stats().inbound
  const sum = handled + deadLettered + dropped + givenBack + repeated + duplicates + waiting + running
  expect({ received, sum }).toEqual({ received, sum: received })
}

/** Lets everything happen that is a matter of a moment, and looks at the counters. */
export async function settle(mqtt: MqttService): Promise<void> {
  await pass(3, 1)
  expectInboundAddsUp(mqtt)
}
