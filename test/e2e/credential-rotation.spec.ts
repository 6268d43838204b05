import { afterEach, beforeEach, expect, it } from 'vitest'
import { MqttClient } from '../../src/client/index.js'
import type { MqttConnectOptions } from '../../src/options/client-options.js'
import { eventually } from '../support/eventually.js'
import { Mosquitto } from '../support/mosquitto.js'

const ROTATIONS = 20
/** Renewed after 75 to 90 % of it. */
const LIFETIME_MS = 200
const MOST_UNHANDLED = 5

let broker: Mosquitto

beforeEach(async () => {
  broker = await Mosquitto.start()
})
afterEach(() => broker.stop())

/** A client with a persistent session whose credentials expire all the time. */
async function rotating(clientId: string, protocolVersion: 4 | 5) {
  let changes = -1
  const options: MqttConnectOptions = {
    url: broker.url,
    clientId,
    protocolVersion,
    clean: false,
    credentials: () => {
      changes += 1
      return { username: clientId, password: `token-${changes}`, expiresAtMs: Date.now() + LIFETIME_MS }
    },
  }
  return { client: await MqttClient.connect(options), changes: () => changes }
}

it.each([4, 5] as const)(
  'twenty credential changes under load lose nothing and repeat nothing, in both directions (version %i)',
  async version => {
    const sender = await rotating('sender', version)
    const receiver = await rotating('receiver', version)
    const handled: unknown[] = []
    let proceed = (): void => {}
    const arrived = (payload: unknown): void => {
      handled.push(payload)
      proceed()
    }
    await receiver.client.subscribe('load', ({ payload }) => arrived(payload), { qos: 1 }).whenGranted()
    const outcomes: Promise<{ readonly status: string }>[] = []
    while (sender.changes() < ROTATIONS || receiver.changes() < ROTATIONS) {
      outcomes.push(sender.client.publish('load', outcomes.length, { qos: 1 }))
      while (outcomes.length - handled.length >= MOST_UNHANDLED)
        await new Promise<void>(resolve => {
          proceed = resolve
        })
    }
    const settled = await Promise.all(outcomes)
    expect(settled.filter(({ status }) => status !== 'acknowledged')).toEqual([])
    await eventually(() => handled.length >= outcomes.length)
    expect(handled).toEqual(outcomes.map((_outcome, index) => index))
    for (const { client } of [sender, receiver])
      expect(client.stats().connection).toMatchObject({ losses: 0, sessionsLost: 0 })
    await Promise.all([sender.client.close(), receiver.client.close()])
  },
)
