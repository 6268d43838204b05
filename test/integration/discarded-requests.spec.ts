import { describe, expect, it } from 'vitest'
import { publishesOf } from '../support/asking.js'
import { quiet } from '../support/held-clock.js'
import { subscriberOnPeer } from '../support/subscriber-on-peer.js'

describe('a stream of responses', () => {
  it('that is left before its request is written discards the request', async () => {
    const { session, mqtt, connection } = await subscriberOnPeer(
      { drainTimeoutMs: 10 },
      { properties: { receiveMaximum: 1 } },
    )
    const first = mqtt.publish('first', 1, { qos: 1 })
    const { messageId = 0 } = await connection.expect('publish')
    const stream = mqtt.requestStream('ask', 1, { qos: 1 })
    await connection.grant()
    await quiet()
    expect(mqtt.stats().outbound.queued).toBe(1)
    await stream.return?.()
    expect(mqtt.stats().outbound).toMatchObject({ queued: 0, dropped: { aborted: 1 } })
    connection.send({ cmd: 'puback', messageId, reasonCode: 0 })
    await first
    await quiet()
    expect(publishesOf(connection).map(({ topic }) => topic)).toEqual(['first'])
    await session.close()
  })
})

describe('a response topic that the broker refuses', () => {
  it('also fails the second request at once', async () => {
    const { session, mqtt, connection } = await subscriberOnPeer({ drainTimeoutMs: 10 })
    const first = mqtt.request('ask', 1)
    await connection.grant(0x87)
    await expect(first).rejects.toMatchObject({ code: 'SUBSCRIBE_REFUSED' })
    await expect(mqtt.request('ask', 1)).rejects.toMatchObject({ code: 'SUBSCRIBE_REFUSED' })
    await session.close()
  })
})
