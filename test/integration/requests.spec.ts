import { describe, expect, it, vi } from 'vitest'
import { Asked, firstRequest, moment, publishesOf, responseTo, subscribesOf } from '../support/asking.js'
import { holdClock, quiet } from '../support/held-clock.js'
import { comeBack, finish, goOffline, pass, publisherOnPeer } from '../support/publisher-on-peer.js'

holdClock()

describe('a request on MQTT 5', () => {
  it('is sent once its private Response Topic is granted, and not before', async () => {
    const on = await publisherOnPeer()
    const asked = new Asked(on.mqtt.request('ask', { celsius: 4 }))
    await moment()
    expect(publishesOf(on.connection)).toEqual([])
    const { subscriptions } = await on.connection.grant()
    expect(subscriptions).toMatchObject([{ qos: 0, nl: false, rh: 2 }])
    expect(subscriptions[0]?.topic).toMatch(/^nestjs-mqtt\/responses\/[0-9a-f-]{36}$/)
    const request = await on.connection.expect('publish')
    expect(request).toMatchObject({
      topic: 'ask',
      payload: Buffer.from('{"celsius":4}'),
      qos: 0,
      retain: false,
      properties: { responseTopic: subscriptions[0]?.topic, messageExpiryInterval: 30 },
    })
    on.connection.send(responseTo(request, { value: 'cold' }))
    await moment()
    expect(asked).toMatchObject({ state: 'responded', value: 'cold' })
    await finish(on)
  })

  it('subscribes once for all requests', async () => {
    const on = await publisherOnPeer()
    const all = Array.from({ length: 50 }, (_, index) => new Asked(on.mqtt.request('ask', index)))
    await on.connection.grant()
    await moment()
    const later = new Asked(on.mqtt.request('ask', 50))
    await moment()
    expect(subscribesOf(on.connection)).toHaveLength(1)
    const requests = publishesOf(on.connection)
    expect(new Set(requests.map(({ properties }) => properties?.responseTopic)).size).toBe(1)
    for (const request of requests.toReversed())
      on.connection.send(responseTo(request, { value: `to ${request.payload}` }))
    await moment()
    expect([...all, later].map(({ value }) => value)).toEqual(
      Array.from({ length: 51 }, (_, index) => `to ${index}`),
    )
    await finish(on)
  })

  it('has different Correlation Data of 16 bytes each time', async () => {
    const on = await publisherOnPeer()
    const all = Array.from({ length: 300 }, () => new Asked(on.mqtt.request('ask', 1)))
    await on.connection.grant()
    await moment()
    const seen = publishesOf(on.connection).map(({ properties }) => properties?.correlationData)
    expect(seen).toHaveLength(300)
    expect(new Set(seen.map(data => data?.length))).toEqual(new Set([16]))
    expect(new Set(seen.map(data => data?.toString('hex'))).size).toBe(300)
    await goOffline(on)
    expect(new Set(all.map(({ code }) => code))).toEqual(new Set(['CONNECTION_LOST']))
    await finish(on)
  })

  it('expires with its time limit in whole seconds by default, and keeps its properties', async () => {
    const on = await publisherOnPeer()
    const { asked } = await firstRequest(on)
    const others = [
      new Asked(on.mqtt.request('ask', 1, { timeoutMs: 1_001 })),
      new Asked(
        on.mqtt.request('ask', 1, {
          qos: 1,
          properties: { messageExpiryInterval: 7, userProperties: { trace: 'a' } },
        }),
      ),
    ]
    expect(await on.connection.expect('publish')).toMatchObject({ properties: { messageExpiryInterval: 2 } })
    const own = await on.connection.expect('publish')
    expect(own).toMatchObject({ qos: 1, properties: { messageExpiryInterval: 7 } })
    expect(own.properties?.userProperties).toEqual({ trace: 'a' })
    on.connection.send({ cmd: 'puback', messageId: own.messageId ?? 0, reasonCode: 0 })
    on.connection.cut()
    await moment()
    expect([asked, ...others].map(({ code }) => code)).toEqual(Array(3).fill('CONNECTION_LOST'))
    await finish(on)
  })

  it('decodes the response with the codec of the request', async () => {
    const on = await publisherOnPeer()
    const asked = new Asked(on.mqtt.request('ask', 'warm?', { codec: 'text' }))
    await on.connection.grant()
    const request = await on.connection.expect('publish')
    expect(request.payload.toString()).toBe('warm?')
    on.connection.send(responseTo(request, { value: Buffer.from('no {json') }))
    await moment()
    expect(asked.value).toBe('no {json')
    await finish(on)
  })

  it('resolves with undefined if the responder sends no value', async () => {
    const on = await publisherOnPeer()
    const { asked, request } = await firstRequest(on)
    on.connection.send(responseTo(request, { status: 'end' }))
    await moment()
    expect(asked).toMatchObject({ state: 'responded', value: undefined })
    await finish(on)
  })
})

describe('responses without an open request', () => {
  it('are dropped and counted, both a second one and a late one', async () => {
    const on = await publisherOnPeer()
    const { asked, request } = await firstRequest(on)
    for (const value of ['first', 'second']) on.connection.send(responseTo(request, { value }))
    await moment()
    expect(asked.value).toBe('first')
    expect(on.mqtt.stats().requests.unexpectedResponses).toBe(1)
    const late = new Asked(on.mqtt.request('ask', 1, { timeoutMs: 10 }))
    const lateRequest = await on.connection.expect('publish')
    await pass(10)
    expect(late.code).toBe('TIMEOUT')
    on.connection.send(responseTo(lateRequest, { value: 'late' }))
    await moment()
    expect(on.mqtt.stats().requests.unexpectedResponses).toBe(2)
    await finish(on)
  })

  it('with unknown Correlation Data, or without any, settle no request', async () => {
    const on = await publisherOnPeer()
    const { asked, request } = await firstRequest(on)
    const { responseTopic = '' } = request.properties ?? {}
    const foreign = { responseTopic, correlationData: Buffer.alloc(16, 7) }
    for (const status of [undefined, 'next', 'end', 'error', 'cancel'])
      on.connection.send(
        responseTo({ properties: foreign }, { value: 1, ...(status === undefined ? {} : { status }) }),
      )
    on.connection.send({ ...responseTo(request, { value: 'nobody' }), properties: {} })
    await moment()
    expect(asked.state).toBe('open')
    expect(on.mqtt.stats().requests.unexpectedResponses).toBe(2)
    on.connection.send(responseTo(request, { value: 'own' }))
    await moment()
    expect(asked.value).toBe('own')
    await finish(on)
  })
})

describe('the response topic', () => {
  async function topicOf(clientId: string, clean: boolean): Promise<string | undefined> {
    const on = await publisherOnPeer({ clientId, clean })
    const { request } = await firstRequest(on)
    await finish(on)
    return request.properties?.responseTopic
  }

  it('of a persistent session is the same after a restart, and differs from that of another session', async () => {
    const before = await topicOf('kept', false)
    expect(before).toMatch(/^nestjs-mqtt\/responses\/[0-9a-f]{32}$/)
    expect(await topicOf('kept', false)).toBe(before)
    expect(await topicOf('other', false)).not.toBe(before)
  })

  it('of a clean session is a different one each time', async () => {
    expect(await topicOf('mine', true)).not.toBe(await topicOf('mine', true))
  })

  it('starts with the prefix of the options', async () => {
    const on = await publisherOnPeer({ requests: { responseTopicPrefix: 'fleet/responses' } })
    const { request } = await firstRequest(on)
    expect(request.properties?.responseTopic).toMatch(/^fleet\/responses\/[^/]+$/)
    await finish(on)
  })

  it('is subscribed again after a lost connection, before the next request', async () => {
    const on = await publisherOnPeer()
    await firstRequest(on)
    await goOffline(on)
    const connection = await comeBack(on)
    const asked = new Asked(on.mqtt.request('ask', 2))
    await quiet()
    expect(publishesOf(connection)).toEqual([])
    await connection.grant()
    const request = await connection.expect('publish')
    connection.send(responseTo(request, { value: 'back' }))
    await moment()
    expect(asked.value).toBe('back')
    // One marker of the link, and one deadline over what the broker has to respond to.
    expect(vi.getTimerCount()).toBeLessThanOrEqual(2)
    await finish(on)
  })
})
