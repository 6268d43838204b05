import { describe, expect, it } from 'vitest'
import { holdClock, quiet } from '../support/held-clock.js'
import {
  comeBack,
  finish,
  goOffline,
  type PublisherOnPeer,
  pass,
  publisherOnPeer,
  SlowLink,
} from '../support/publisher-on-peer.js'

holdClock()

/** What the log says of publishes. */
const said = ({ log }: PublisherOnPeer) =>
  log.lines.filter(({ text }) => /publishes/.test(text)).map(({ level, text }) => `${level}: ${text}`)

describe('the log', () => {
  it('reports drops during an outage once, and their number after the reconnect', async () => {
    const parts = await publisherOnPeer()
    await goOffline(parts)
    for (let count = 0; count < 1_000; count += 1) parts.mqtt.tryPublish('t', count)
    await pass(900, 100)
    expect(said(parts)).toEqual(['warn: publishes are dropped while there is no connection'])
    await comeBack(parts)
    expect(said(parts)).toEqual([
      'warn: publishes are dropped while there is no connection',
      expect.stringMatching(/^warn: 1000 publishes were dropped within 1\.\d s: offline 1000$/),
    ])
    await pass(10_000, 1_000)
    parts.mqtt.tryPublish('t', 1)
    await quiet()
    expect(said(parts)).toHaveLength(2)
    await finish(parts)
    expect(said(parts)).toHaveLength(2)
  })

  it('reports each outage once', async () => {
    const parts = await publisherOnPeer()
    let { connection } = parts
    for (let outage = 1; outage <= 3; outage += 1) {
      await goOffline({ ...parts, connection })
      for (let count = 0; count < 10; count += 1) parts.mqtt.tryPublish('t', count)
      connection = await comeBack(parts)
      expect(said(parts)).toHaveLength(2 * outage)
    }
    await finish(parts)
  })

  it('reports a slow link once, and the number of drops when it has caught up', async () => {
    const parts = await publisherOnPeer()
    const link = await SlowLink.of(parts)
    for (let count = 0; count < 50; count += 1) parts.mqtt.tryPublish('t', count)
    await pass(1_000)
    expect(said(parts)).toEqual(['warn: publishes are dropped: the link is slower than the data'])
    for (let count = 0; count < 50; count += 1) parts.mqtt.tryPublish('t', count)
    await pass(1_000)
    expect(said(parts)).toHaveLength(1)
    await link.free()
    // Not for a moment: more could be dropped at once.
    expect(said(parts)).toHaveLength(1)
    await pass(1_000)
    parts.mqtt.tryPublish('t', 1)
    await pass(200)
    expect(said(parts)).toEqual([
      'warn: publishes are dropped: the link is slower than the data',
      expect.stringMatching(/^warn: 100 publishes were dropped within [23]\.\d s: backlog 100$/),
    ])
    await finish(parts)
  })

  it('reports nothing that the application requested', async () => {
    const parts = await publisherOnPeer({ outbound: { whenBlocked: 'latest' } })
    await goOffline(parts)
    const aborting = new AbortController()
    const aborted = parts.mqtt.publish('a', 1, { signal: aborting.signal })
    for (let count = 0; count < 100; count += 1) parts.mqtt.tryPublish('t', count)
    aborting.abort()
    expect(await aborted).toEqual({ status: 'dropped', reason: 'aborted' })
    await comeBack(parts)
    await pass(5_000, 1_000)
    expect(said(parts)).toEqual([])
    await finish(parts)
    await parts.mqtt.publish('t', 1)
    expect(said(parts)).toEqual([])
  })

  it('names the limit that is reached', async () => {
    const parts = await publisherOnPeer({ outbound: { whenBlocked: 'queue', maxQueued: 10, maxAgeMs: 500 } })
    await goOffline(parts)
    for (let count = 0; count < 30; count += 1) parts.mqtt.tryPublish('t', count)
    await pass(900, 100)
    await comeBack(parts)
    expect(said(parts)).toEqual([
      'warn: publishes are dropped: outbound.maxQueued or outbound.maxQueuedBytes is reached',
      expect.stringMatching(/^warn: 30 publishes were dropped within 1\.9 s: queue-full 20, expired 10$/),
    ])
    await finish(parts)
  })

  it('reports slow acknowledgements of the broker as the cause', async () => {
    const parts = await publisherOnPeer({}, { properties: { receiveMaximum: 1 } })
    const { mqtt, connection } = parts
    const all = [1, 2, 3].map(value => mqtt.publish('t', value, { qos: 1 }))
    await pass(1_000)
    expect(await Promise.all(all.slice(1))).toEqual(
      Array(2).fill({ status: 'dropped', reason: 'in-flight-full' }),
    )
    expect(said(parts)).toEqual(['warn: publishes are dropped: the broker acknowledges them too slowly'])
    connection.send({
      cmd: 'puback',
      messageId: (await connection.expect('publish')).messageId ?? 0,
      reasonCode: 0,
    })
    await Promise.all(all)
    await finish(parts)
  })
})
