import { describe, expect, it } from 'vitest'
import { expectAddsUp, publisherOnPeer } from '../support/publisher-on-peer.js'

describe('a loop that awaits one publish after the other', () => {
  it.each([
    ['without a connection', true],
    ['with signals that are aborted', false],
  ])('lets timers and sockets run while all are dropped: %s', async (_how, isOffline) => {
    const parts = await publisherOnPeer({ reconnect: { delayMs: [5], resetAfterMs: 0 } })
    const { mqtt, peer, connection } = parts
    if (isOffline) await connection.cut()
    const terms = isOffline ? { qos: 1 as const } : { signal: AbortSignal.abort() }
    let isOver = false
    // It runs when the event loop turns, as timers and sockets do.
    setImmediate(() => {
      isOver = true
    })
    const statuses = new Set<string>()
    for (let calls = 0; !isOver && calls < 500_000; calls += 1)
      statuses.add((await mqtt.publish('t', calls, terms)).status)
    expect(isOver).toBe(true)
    expect([...statuses]).toEqual(['dropped'])
    expectAddsUp(mqtt)
    if (isOffline) {
      const accepted = await peer.accept()
      await mqtt.whenConnected()
      expect(await mqtt.publish('t', 1)).toEqual({ status: 'sent' })
      await accepted.expect('publish')
    }
    await parts.session.close()
  })

  it('receives the outcomes of many drops in the order of the calls', async () => {
    const parts = await publisherOnPeer()
    await parts.connection.cut()
    const settled: number[] = []
    const count = 1_000
    const all = Array.from({ length: count }, (_, n) =>
      parts.mqtt.publish('t', n).then(() => settled.push(n)),
    )
    await Promise.all(all)
    expect(settled).toEqual(Array.from({ length: count }, (_, n) => n))
    expect(parts.mqtt.stats().outbound.dropped.offline).toBe(count)
    await parts.session.close()
  })
})
