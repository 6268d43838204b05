import { afterEach, describe, expect, it } from 'vitest'
import { MqttClient, type MqttConnectOptions } from '../../src/client/index.js'
import { eventually } from '../support/eventually.js'
import { failOnEscapedErrors } from '../support/hostile-session.js'
import { RecordingLog } from '../support/recording-log.js'
import { RetainingPeer, type RetainingRules } from '../support/retaining-peer.js'

failOnEscapedErrors()

const open: MqttClient[] = []
afterEach(async () => {
  for (const client of open.splice(0)) await client.close()
})

/** A client with one handler, on a broker that has three retained messages. */
async function handling(
  filter: string,
  rules: RetainingRules = {},
  options: Partial<MqttConnectOptions> = {},
) {
  const peer = new RetainingPeer(rules)
  for (const site of [1, 2, 3]) peer.publish(`sites/${site}/state`, `"old ${site}"`)
  peer.publish('sites', '"old root"')
  const log = new RecordingLog()
  const client = await MqttClient.connect({
    createStream: peer.createStream,
    protocolVersion: 5,
    keepalive: 0,
    reconnect: { delayMs: [1] },
    drainTimeoutMs: 100,
    logger: log,
    ...options,
  })
  open.push(client)
  const received: string[] = []
  const handler = ({ topic, payload }: { topic: string; payload: unknown }): void => {
    received.push(`${topic}: ${payload}`)
  }
  await client.subscribe(filter, handler, { order: 'none' }).whenGranted()
  await eventually(() => received.length > 0)
  received.length = 0
  /** Publishes retained messages to new topics, between all packets that the client sends. */
  const live: string[] = []
  peer.afterPacket = () => {
    const topic = `sites/new ${live.length}/state`
    live.push(`${topic}: live`)
    // More than a hundred are enough for every synchronisation, and an endless stream would not let it end.
    if (live.length < 100) peer.publish(topic, '"live"')
    else live.pop()
  }
  return { peer, client, received, live, log }
}

const PERSISTENT = { clean: false, clientId: 'observer' }

const BROKERS: readonly [name: string, rules: RetainingRules, protocolVersion: 4 | 5][] = [
  ['a broker that ignores a changed Retain As Published', {}, 5],
  ['a broker that applies a changed Retain As Published', { appliesOptions: true }, 5],
  ['a broker that sends one copy, with the RETAIN flag', { appliesOptions: true, mergesCopies: 'any' }, 5],
  ['a broker that sends one copy, without it', { appliesOptions: true, mergesCopies: 'all' }, 5],
  ['a broker without Subscription Identifiers', { hasIdentifiers: false }, 5],
  ['MQTT 3.1.1', {}, 4],
]
const FILTERS = ['sites/+/state', 'sites/#', '#', '+/#', 'sites/+/#', '+/+/+']

describe.each(BROKERS)(
  'retained() beside a handler of the same filter, on %s',
  (_name, rules, protocolVersion) => {
    it.each(FILTERS)(
      'delivers each live message of "%s" to the handler once, and to the cache',
      async filter => {
        const { peer, client, received, live } = await handling(filter, rules, { protocolVersion })
        const cache = client.retained(filter, { quietMs: 0 })
        await cache.whenComplete()
        await eventually(() => live.every(message => received.includes(message)))
        const counts = live.map(message => received.filter(other => other === message).length)
        expect(counts).toEqual(live.map(() => 1))
        const stored = received.filter(message => !message.includes('new'))
        expect(stored).toEqual(rules.hasIdentifiers === false ? stored : [])
        expect(cache.get('sites/2/state')).toBe('old 2')
        await eventually(() => cache.size === live.length + (cache.has('sites') ? 4 : 3))
        expect(peer.filters).toContain(filter)
        await eventually(() => peer.filters.length === 1)
      },
    )
  },
)

const F = 'sites/+/state'
const SEPARATE = 'sites/+/state/#'
const once = (live: readonly string[], received: readonly string[]): void => {
  const counts = live.map(message => received.filter(other => other === message).length)
  expect(counts).toEqual(live.map(() => 1))
}

describe('retained() beside a handler of the same filter', () => {
  it('lets handlers have the retained messages again if the broker refuses a separate filter', async () => {
    const refuses = (filter: string) => (filter === SEPARATE ? ('refused' as const) : undefined)
    const { peer, client, received, live, log } = await handling(F, { refuses })
    for (let round = 0; round < 2; round += 1) {
      const cache = client.retained(F, { quietMs: 0 })
      await cache.whenComplete()
      expect(cache.get('sites/3/state')).toBe('old 3')
    }
    await eventually(() => live.every(message => received.includes(message)))
    expect(received).toContain('sites/3/state: old 3')
    expect(log.visible.join()).not.toContain('refused')
    expect(client.health.refusedSubscriptions).toEqual([])
    expect(peer.filters).toEqual([F])
  })

  it('tries a separate filter twice on a broker that closes the connection for it', async () => {
    const refuses = (filter: string) => (filter === SEPARATE ? ('disconnected' as const) : undefined)
    const { peer, client, received } = await handling(F, { refuses, keepsSession: true }, PERSISTENT)
    const cache = client.retained(F, { quietMs: 0 })
    await cache.whenComplete()
    peer.cut()
    await eventually(() => !cache.isComplete)
    await cache.whenComplete()
    expect(cache.get('sites/3/state')).toBe('old 3')
    expect(peer.log.filter(filter => filter === `+${SEPARATE}`)).toHaveLength(2)
    expect(received).toContain('sites/3/state: old 3')
  })

  it('delivers each live message once over the resumption of a session', async () => {
    const { peer, client, received, live } = await handling(F, { keepsSession: true }, PERSISTENT)
    const cache = client.retained(F, { quietMs: 0 })
    await cache.whenComplete()
    for (let round = 0; round < 3; round += 1) {
      peer.cut()
      await eventually(() => !cache.isComplete)
      peer.publish(`sites/${round}/state`, '"during the outage"')
      await cache.whenComplete()
      expect(cache.get(`sites/${round}/state`)).toBe('during the outage')
    }
    await eventually(() => live.every(message => received.includes(message)))
    once(live, received)
    expect(received.join()).not.toContain('old')
    await eventually(() => peer.filters.length === 1)
  })

  it('delivers no message twice if the connection ends while it is synchronised', async () => {
    const { peer, client, received, live } = await handling(F, { keepsSession: true }, PERSISTENT)
    const { afterPacket } = peer
    let isCut = false
    peer.afterPacket = packet => {
      afterPacket(packet)
      if (isCut || packet.cmd !== 'pingreq' || !peer.filters.includes(SEPARATE)) return
      isCut = true
      peer.cut()
    }
    const cache = client.retained(F, { quietMs: 0 })
    await cache.whenComplete()
    expect(isCut).toBe(true)
    for (let round = 0; round < 3; round += 1) {
      isCut = false
      peer.cut()
      await eventually(() => !cache.isComplete)
      await cache.whenComplete()
      expect(isCut).toBe(true)
    }
    // What was on the wire at QoS 0 is lost. Nothing arrives twice.
    peer.publish('sites/end/state', '"end"')
    await eventually(() => received.includes('sites/end/state: end'))
    expect(new Set(received).size).toBe(received.length)
    expect(live.filter(message => received.includes(message)).length).toBeGreaterThan(live.length / 2)
    expect(cache.get('sites/3/state')).toBe('old 3')
    await eventually(() => peer.filters.length === 1)
  })

  it('removes the separate filter when the cache is closed before it is complete', async () => {
    const { peer, client, received, live } = await handling(F)
    const cache = client.retained(F, { quietMs: 60_000 })
    await eventually(() => peer.filters.includes(SEPARATE))
    await cache.close()
    await eventually(() => !peer.filters.includes(SEPARATE))
    peer.publish('sites/end/state', '"end"')
    await eventually(() => received.includes('sites/end/state: end'))
    once(live, received)
    expect(peer.filters).toEqual([F])
  })

  it('can be closed after the broker has refused to remove the separate filter', async () => {
    const { peer, client, log } = await handling(F, { refusesUnsubscribe: true })
    const cache = client.retained(F, { quietMs: 0 })
    await cache.whenComplete()
    await eventually(() => log.visible.some(line => line.includes(`refused UNSUBSCRIBE of "${SEPARATE}"`)))
    await cache.close()
    await client.close()
    expect(peer.filters).toEqual([F, SEPARATE])
  })

  it('leaves a handler of the separate filter alone, before and during the synchronisation', async () => {
    const { peer, client, received, live } = await handling(F)
    const wide: string[] = []
    const cache = client.retained(F, { quietMs: 0 })
    await eventually(() => peer.filters.includes(SEPARATE))
    client.subscribe(SEPARATE, ({ topic, payload }) => void wide.push(`${topic}: ${payload}`))
    await cache.whenComplete()
    await eventually(() => live.every(message => received.includes(message)))
    once(live, received)
    // Now the handlers of the first filter receive the retained messages again.
    const second = client.retained(F, { quietMs: 0 })
    await second.whenComplete()
    peer.publish('sites/end/state', '"end"')
    await eventually(() => [received, wide].every(list => list.includes('sites/end/state: end')))
    once(['sites/end/state: end'], received)
    once(['sites/end/state: end'], wide)
    expect(peer.filters).toEqual([F, SEPARATE])
    expect(second.size).toBe(cache.size)
  })

  it('completes several caches of one filter, and removes the separate filter after the last one', async () => {
    const { peer, client, received, live } = await handling(F)
    const caches = Array.from({ length: 3 }, () => client.retained(F, { quietMs: 0 }))
    await Promise.all(caches.map(cache => cache.whenComplete()))
    for (const cache of caches) expect(cache.get('sites/3/state')).toBe('old 3')
    await eventually(() => peer.filters.length === 1)
    await eventually(() => live.every(message => received.includes(message)))
    once(live, received)
    expect(received.join()).not.toContain('old')
  })

  it('gives up a separate filter that has too many retained messages of other topics', async () => {
    const { peer, client, received, live } = await handling(F)
    for (let number = 0; number < 200; number += 1) peer.publish(`sites/1/state/${number}`, '"below"')
    const cache = client.retained(F, { quietMs: 0 })
    await cache.whenComplete()
    expect(cache.get('sites/3/state')).toBe('old 3')
    await eventually(() => live.every(message => received.includes(message)))
    expect(received).toContain('sites/3/state: old 3')
    expect(received.join()).not.toContain('below')
    expect(cache.has('sites/1/state/1')).toBe(false)
    await eventually(() => peer.filters.length === 1)
  })

  it('reports one change for each live message, although the broker sends two copies', async () => {
    const { peer, client } = await handling(F)
    const cache = client.retained(F, { quietMs: 60_000 })
    const changes = cache.changes()
    await eventually(() => peer.filters.includes(SEPARATE))
    peer.afterPacket = () => {}
    peer.publish('sites/x/state', '1')
    peer.publish('sites/x/state', '2')
    peer.publish('sites/x/state', '')
    const seen: unknown[] = []
    for await (const change of changes) {
      if (change.topic !== 'sites/x/state') continue
      seen.push(change.type === 'set' ? change.value : change.reason)
      if (change.type === 'removed') break
    }
    expect(seen.at(-1)).toBe('cleared')
    expect(cache.has('sites/x/state')).toBe(false)
  })
})
