import { describe, expect, it } from 'vitest'
import type { PeerConnection } from '../../src/testing/index.js'
import { holdClock, quiet } from '../support/held-clock.js'
import { comeBack, finish, flow, goOffline } from '../support/publisher-on-peer.js'
import { KEPT, settle, subscriberOnPeer } from '../support/subscriber-on-peer.js'

holdClock()

const ignore = (): void => {}
const QUEUE = { whenBlocked: 'queue' } as const

/** Kinds of the packets that arrived after CONNECT, in order, without PINGREQ and repetitions. */
function order(connection: PeerConnection): string[] {
  const kinds = connection.received
    .map(({ cmd }) => cmd)
    .filter(cmd => cmd !== 'connect' && cmd !== 'pingreq')
  return kinds.filter((cmd, index) => cmd !== kinds[index - 1])
}

async function grantAll(connection: PeerConnection, count: number): Promise<void> {
  for (let index = 0; index < count; index += 1) await connection.grant()
}

describe('a client that subscribes to what it publishes', () => {
  it('subscribes before it sends its queue, after a lost session', async () => {
    const parts = await subscriberOnPeer()
    parts.mqtt.subscribe('a', ignore)
    await parts.connection.grant()
    await goOffline(parts)
    const queued = [0, 1, 2].map(value => parts.mqtt.publish('a', value, { qos: 1, ...QUEUE }))
    const second = await comeBack(parts)
    await flow()
    expect(order(second)).toEqual(['subscribe', 'publish'])
    await finish(parts)
    await Promise.all(queued)
  })

  it('subscribes to a new filter before it resends the publishes of a resumed session', async () => {
    const parts = await subscriberOnPeer(KEPT)
    const unanswered = parts.mqtt.publish('a', 1, { qos: 1 })
    await parts.connection.find('publish')
    await goOffline(parts)
    parts.mqtt.subscribe('a', ignore)
    const second = await comeBack(parts, { sessionPresent: true })
    await flow()
    expect(order(second)).toEqual(['subscribe', 'publish'])
    await finish(parts)
    await unanswered
  })

  it('publishes nothing before the last SUBSCRIBE is sent, and drops nothing in the meantime', async () => {
    const parts = await subscriberOnPeer()
    const { mqtt } = parts
    const filters = 1_003
    for (let id = 0; id < filters; id += 1) mqtt.subscribe(`a/${id}`, ignore)
    await grantAll(parts.connection, filters)
    await goOffline(parts)
    const queued = mqtt.publish('a/0', 'queued', QUEUE)
    const second = await comeBack(parts)
    const fresh = mqtt.publish('a/0', 'fresh')
    await quiet(50)
    expect(order(second)).toEqual(['subscribe'])
    expect(mqtt.tryPublish('a/0', 'tried')).toEqual({ status: 'accepted' })
    await grantAll(second, 3)
    expect(await Promise.all([queued, fresh])).toEqual([{ status: 'sent' }, { status: 'sent' }])
    await settle(mqtt)
    expect(second.received.filter(({ cmd }) => cmd === 'subscribe')).toHaveLength(filters)
    expect(order(second)).toEqual(['subscribe', 'publish'])
    await grantAll(second, filters - 3).catch(() => {})
    await finish(parts)
  })
})
