import { connect } from 'node:net'
import { connectAsync } from 'mqtt'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { EmbeddedBroker, FaultLink } from '../../src/testing/index.js'
import { eventually } from '../support/eventually.js'

let broker: EmbeddedBroker
let link: FaultLink
beforeEach(async () => {
  broker = await EmbeddedBroker.start()
  link = await FaultLink.start({ port: Number(new URL(broker.url).port) })
})
afterEach(async () => {
  await link.stop()
  await broker.stop()
})

const dial = () => connectAsync(link.url, { reconnectPeriod: 0, protocolVersion: 4 })
type Client = Awaited<ReturnType<typeof dial>>

async function receiving(): Promise<{ client: Client; received: string[] }> {
  const client = await dial()
  const received: string[] = []
  client.on('message', (_topic, payload) => received.push(payload.toString()))
  await client.subscribeAsync('t')
  return { client, received }
}

describe('a fault link', () => {
  it('passes bytes in both directions, in order', async () => {
    const { client, received } = await receiving()
    for (let index = 0; index < 100; index += 1) client.publish('t', String(index))
    await eventually(() => received.length === 100)
    expect(received).toEqual(Array.from({ length: 100 }, (_, index) => String(index)))
    expect(link).toMatchObject({ open: 1, dials: 1 })
    await client.endAsync()
  })

  it('many links in one process add one listener to a socket, not one each', async () => {
    const port = Number(new URL(broker.url).port)
    const links = await Promise.all(Array.from({ length: 12 }, () => FaultLink.start({ port })))
    const alone = connect(port, '127.0.0.1')
    const listeners = alone.listenerCount('close')
    await Promise.all(links.map(other => other.stop()))
    const later = connect(port, '127.0.0.1')
    expect(listeners).toBe(later.listenerCount('close'))
    alone.destroy()
    later.destroy()
  })

  it('cut: both sides are disconnected', async () => {
    const { client } = await receiving()
    link.cut()
    await eventually(() => !client.connected && broker.connectedClients === 0)
    expect(link.open).toBe(0)
  })

  it.each(['both', 'to-client', 'to-broker'] as const)(
    'stall %s: nothing passes until heal()',
    async direction => {
      const { client, received } = await receiving()
      link.stall(direction)
      const published = client.publishAsync('t', 'late', { qos: 1 })
      if (direction === 'to-client') await broker.publish('t', 'other')
      for (let turn = 0; turn < 200; turn += 1) await new Promise(setImmediate)
      expect(received).toEqual([])
      link.heal()
      await published
      await eventually(() => received.includes('late'))
      await client.endAsync()
    },
  )

  it('half-open: the client is not notified, and its bytes are discarded', async () => {
    const { client, received } = await receiving()
    link.halfOpen()
    await eventually(() => broker.connectedClients === 0)
    client.publish('t', 'into the void')
    for (let turn = 0; turn < 200; turn += 1) await new Promise(setImmediate)
    expect(client.connected).toBe(true)
    expect(received).toEqual([])
    await client.endAsync(true)
    await eventually(() => link.open === 0)
  })

  it('refuse: new connections are reset, the existing one continues', async () => {
    const { client, received } = await receiving()
    link.refuse()
    await expect(dial()).rejects.toThrow()
    client.publish('t', 'still here')
    await eventually(() => received.length === 1)
    link.refuse(false)
    const second = await dial()
    await Promise.all([client.endAsync(), second.endAsync()])
  })

  it('throttle and delay: all bytes arrive, not earlier than configured', async () => {
    const { client, received } = await receiving()
    link.throttle(100_000, 'to-broker')
    const start = performance.now()
    await client.publishAsync('t', Buffer.alloc(20_000), { qos: 1 })
    // 20 KB at 100 KB a second, less one slice.
    expect(performance.now() - start).toBeGreaterThan(150)
    link.heal()
    link.delay(50, 'to-client')
    const delayed = performance.now()
    await client.publishAsync('t', 'x', { qos: 1 })
    expect(performance.now() - delayed).toBeGreaterThanOrEqual(49)
    await eventually(() => received.length === 2)
    link.heal()
    await client.endAsync()
  })
})
