import { describe, expect, it } from 'vitest'
import { responseTo } from '../support/asking.js'
import { Gate } from '../support/gate.js'
import { holdClock } from '../support/held-clock.js'
import { comeBack, finish, goOffline } from '../support/publisher-on-peer.js'
import {
  countOf,
  json,
  KEPT,
  settle,
  streamRequest,
  subscriberOnPeer,
} from '../support/subscriber-on-peer.js'

holdClock()

const DRAIN = { drainTimeoutMs: 10_000 }
const RESUMED = { sessionPresent: true }

async function* twoValues() {
  yield 1
  yield 2
}

describe('a connection that is lost during a drain', () => {
  it.each([{}, KEPT])(
    'subscribes the response topic again in a new session, so that a handler gets its response (%o)',
    async options => {
      const parts = await subscriberOnPeer({ ...DRAIN, ...options })
      const { mqtt, connection } = parts
      const gate = new Gate()
      let response: unknown
      mqtt.subscribe('work', async () => {
        await gate.pass()
        response = await mqtt.request('ask', 1)
      })
      await connection.grant()
      const first = mqtt.request('ask', 1)
      await connection.grant()
      connection.send(responseTo(await connection.expect('publish'), { value: 'first' }))
      expect(await first).toBe('first')
      connection.send(json('work', 1))
      await gate.reached()
      const drained = mqtt.drain()
      await settle(mqtt)
      await goOffline(parts)
      const second = await comeBack(parts)
      gate.open()
      const { subscriptions } = await second.grant()
      const request = await second.expect('publish')
      expect(subscriptions.map(({ topic }) => topic)).toEqual([request.properties?.responseTopic])
      second.send(responseTo(request, { value: 'second' }))
      await drained
      expect(response).toBe('second')
      await finish(parts)
    },
  )

  it.each([true, false])('lets a stream begin that waits for it (session resumed: %s)', async isResumed => {
    const parts = await subscriberOnPeer({ ...DRAIN, ...KEPT })
    const { mqtt, connection } = parts
    const gate = new Gate()
    mqtt.respond('early', twoValues)
    mqtt.respond('late', async () => {
      await gate.pass()
      return twoValues()
    })
    await connection.grant()
    await connection.grant()
    connection.send(streamRequest('early'))
    await connection.grant()
    await settle(mqtt)
    connection.send(streamRequest('late'))
    await gate.reached()
    const drained = mqtt.drain()
    await goOffline(parts)
    gate.open()
    await settle(mqtt)
    const second = await comeBack(parts, isResumed ? RESUMED : {})
    if (!isResumed) await second.grant()
    expect(await second.find('publish')).toMatchObject({ topic: 'to', payload: Buffer.from('1') })
    await drained
    expect(mqtt.stats().requests.openStreams).toBe(0)
    await finish(parts)
  })

  it('sends an UNSUBSCRIBE that waits for the connection, and subscribes nothing else', async () => {
    const parts = await subscriberOnPeer({ ...DRAIN, ...KEPT })
    const { mqtt, connection } = parts
    const gate = new Gate()
    mqtt.subscribe('work', () => gate.pass())
    await connection.grant()
    const removed = mqtt.subscribe('removed', () => {})
    await connection.grant()
    connection.send(json('work', 1))
    await gate.reached()
    await goOffline(parts)
    const unsubscribed = removed.unsubscribe()
    const drained = mqtt.drain()
    const second = await comeBack(parts, RESUMED)
    const { messageId = 0, unsubscriptions } = await second.expect('unsubscribe')
    expect(unsubscriptions).toEqual(['removed'])
    second.send({ cmd: 'unsuback', messageId, granted: [0] })
    await unsubscribed
    expect(countOf(second, 'subscribe')).toBe(0)
    gate.open()
    await drained
    await finish(parts)
  })
})
