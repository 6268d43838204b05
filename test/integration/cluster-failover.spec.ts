import { afterEach, describe, expect, it } from 'vitest'
import { MqttClient } from '../../src/client/index.js'
import type { PublishOutcome } from '../../src/core/outbound/publish-outcome.js'
import { ClusteredBroker } from '../support/clustered-broker.js'
import { eventually } from '../support/eventually.js'

const MESSAGES = 300
const RECONNECT = { delayMs: [1] } as const

const ends: (() => unknown)[] = []
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end()
})

async function cluster(): Promise<ClusteredBroker> {
  const broker = await ClusteredBroker.start(3)
  ends.push(() => broker.stop())
  return broker
}

function clientOf(url: readonly string[], clientId: string): MqttClient {
  const client = new MqttClient({
    url,
    clientId,
    clean: false,
    protocolVersion: 4,
    keepalive: 0,
    reconnect: RECONNECT,
    drainTimeoutMs: 100,
  })
  ends.push(() => client.close())
  return client
}

async function subscriberOf(broker: ClusteredBroker) {
  const runs = new Map<number, number>()
  const client = clientOf(broker.urls, 'subscriber')
  const subscription = client.subscribe<number>(
    'load',
    async ({ payload }) => {
      await new Promise(setImmediate)
      runs.set(payload, (runs.get(payload) ?? 0) + 1)
    },
    { qos: 1 },
  )
  await client.start()
  await subscription.whenGranted()
  return { client, runs }
}

const placeOf = ({ state }: MqttClient): string | undefined =>
  state.status === 'connected' ? state.session.broker : undefined

describe('a list with the URLs of all nodes of a cluster', () => {
  it('keeps QoS 1 messages going while one node after the other is killed: each acknowledged one is handled', async () => {
    const broker = await cluster()
    const { client: subscriber, runs } = await subscriberOf(broker)
    const publisher = clientOf(broker.urls, 'publisher')
    await publisher.start()
    const visited: (string | undefined)[] = [placeOf(publisher)]
    let killed: string | undefined
    broker.onStored = count => {
      // Before the PUBACK: the publisher cannot know that the message is stored.
      if (count % (MESSAGES / 6) !== 0) return
      const url = placeOf(publisher)
      if (url === undefined) return
      if (killed !== undefined) broker.revive(killed)
      killed = url
      broker.kill(url)
    }
    publisher.onState(state => {
      if (state.status === 'connected') visited.push(state.session.broker)
    })

    const outcomes: PublishOutcome[] = []
    for (let number = 0; number < MESSAGES; number += 1)
      outcomes.push(await publisher.publish('load', number, { qos: 1, whenBlocked: 'wait' }))

    expect(new Set(outcomes.map(({ status }) => status))).toEqual(new Set(['acknowledged']))
    await eventually(() => runs.size === MESSAGES)
    // The broker has stored the one in flight at each kill twice, which QoS 1 allows.
    expect(broker.repeated).toBe(visited.length - 1)
    expect(visited.length).toBeGreaterThan(3)
    expect(new Set(visited)).toEqual(new Set(broker.urls))
    expect(subscriber.stats().inbound.dropped).toBe(0)
  })

  it('is necessary: with only the URL of the killed node, nothing is acknowledged', async () => {
    const broker = await cluster()
    const [first = ''] = broker.urls
    const alone = clientOf([first], 'alone')
    const listed = clientOf(broker.urls, 'listed')
    await Promise.all([alone.start(), listed.start()])
    const failures: string[] = []
    alone.onState(state => {
      if (state.status === 'waiting') failures.push(state.cause.message)
    })
    const moved = new Promise<void>(resolve => {
      listed.onState(({ status }) => status === 'connected' && resolve())
    })
    broker.kill(first)
    await moved
    await eventually(() => failures.length > 5)
    expect(await listed.publish('load', 1, { qos: 1, whenBlocked: 'wait' })).toMatchObject({
      status: 'acknowledged',
    })
    expect(await alone.publish('load', 2, { qos: 1 })).toEqual({ status: 'dropped', reason: 'offline' })
    for (const failure of failures.slice(1)) expect(failure).toContain(`could not connect to ${first}`)
    broker.revive(first)
    expect(await alone.publish('load', 3, { qos: 1, whenBlocked: 'wait' })).toMatchObject({
      status: 'acknowledged',
    })
  })
})
