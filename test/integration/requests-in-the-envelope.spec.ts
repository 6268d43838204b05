import { describe, expect, it } from 'vitest'
import type { PublishPacket } from '../../src/index.js'
import type { PeerConnection } from '../../src/testing/index.js'
import { Asked, moment, publishesOf, subscribesOf } from '../support/asking.js'
import { holdClock } from '../support/held-clock.js'
import { finish, goOffline, pass, publisherOnPeer } from '../support/publisher-on-peer.js'
import { json } from '../support/subscriber-on-peer.js'

holdClock()

const onVersion4 = () => publisherOnPeer({ protocolVersion: 4 })

function envelopeOf({ payload }: Pick<PublishPacket, 'payload'>) {
  const envelope: unknown = JSON.parse(payload.toString())
  if (typeof envelope !== 'object' || envelope === null || !('id' in envelope)) throw new Error('no envelope')
  return { ...envelope, id: String(envelope.id) }
}

const reply = (connection: PeerConnection, topic: string, fields: object) =>
  connection.send(json(`${topic}/reply`, fields))

describe('a request on MQTT 3.1.1', () => {
  it('is sent in the envelope of the built-in transport, once its reply topic is granted', async () => {
    const on = await onVersion4()
    const asked = new Asked(on.mqtt.request('ask', { celsius: 4 }))
    await moment()
    expect(publishesOf(on.connection)).toEqual([])
    expect(await on.connection.grant()).toMatchObject({ subscriptions: [{ topic: 'ask/reply', qos: 0 }] })
    const request = await on.connection.expect('publish')
    const { id, ...envelope } = envelopeOf(request)
    expect(request.topic).toBe('ask')
    expect(envelope).toEqual({ pattern: 'ask', data: { celsius: 4 } })
    expect(id).toMatch(/^[0-9a-f]{32}$/)
    reply(on.connection, 'ask', { response: 'cold', isDisposed: true, id })
    await moment()
    expect(asked.value).toBe('cold')
    await finish(on)
  })

  it('subscribes once per topic, and matches each reply to its request', async () => {
    const on = await onVersion4()
    const all = ['a', 'b', 'a', 'b'].map(topic => new Asked(on.mqtt.request(topic, topic)))
    await on.connection.grant()
    await on.connection.grant()
    await moment()
    expect(subscribesOf(on.connection)).toEqual(['a/reply', 'b/reply'])
    const requests = publishesOf(on.connection)
    for (const [index, request] of requests.toReversed().entries())
      reply(on.connection, request.topic, { response: index, isDisposed: true, id: envelopeOf(request).id })
    await moment()
    expect(all.map(({ state }) => state)).toEqual(Array(4).fill('responded'))
    expect(new Set(all.map(({ value }) => value)).size).toBe(4)
    await finish(on)
  })

  it('ignores messages of other requests', async () => {
    const on = await onVersion4()
    const asked = new Asked(on.mqtt.request('ask', 1))
    await on.connection.grant()
    const { id } = envelopeOf(await on.connection.expect('publish'))
    for (const foreign of [1, null, 'text', [], {}, { id: 7, response: 1 }, { id: 'other', response: 1 }])
      on.connection.send(json('ask/reply', foreign))
    on.connection.send({ ...json('ask/reply', 1), payload: '{"half":' })
    await moment()
    expect(asked.state).toBe('open')
    reply(on.connection, 'ask', { response: null, isDisposed: true, id })
    await moment()
    expect(asked).toMatchObject({ state: 'responded', value: null })
    await finish(on)
  })

  it('fails with the error that the responder sent', async () => {
    const on = await onVersion4()
    const asked = new Asked(on.mqtt.request('ask', 1))
    await on.connection.grant()
    const { id } = envelopeOf(await on.connection.expect('publish'))
    reply(on.connection, 'ask', { err: { status: 'error', message: 'too warm' }, isDisposed: true, id })
    await moment()
    expect(asked.error).toMatchObject({ code: 'REQUEST_FAILED', message: 'too warm' })
    await finish(on)
  })

  it('fails at its time limit, and with its signal, its subscription or its connection', async () => {
    const on = await onVersion4()
    const refused = new Asked(on.mqtt.request('secret', 1))
    await on.connection.grant(0x80)
    await moment()
    const aborter = new AbortController()
    const slow = new Asked(on.mqtt.request('ask', 1, { timeoutMs: 50 }))
    const aborted = new Asked(on.mqtt.request('ask', 1, { signal: aborter.signal }))
    const lost = new Asked(on.mqtt.request('ask', 1))
    await on.connection.grant()
    await moment()
    aborter.abort()
    await pass(50)
    await goOffline(on)
    expect([refused, slow, aborted, lost].map(({ code }) => code)).toEqual([
      'SUBSCRIBE_REFUSED',
      'TIMEOUT',
      'ABORTED',
      'CONNECTION_LOST',
    ])
    await finish(on)
  })
})

it('on MQTT 5 the envelope is used if the request selects it', async () => {
  const on = await publisherOnPeer()
  const asked = new Asked(on.mqtt.request('ask', 1, { protocol: 'nest' }))
  await on.connection.grant()
  const request = await on.connection.expect('publish')
  expect(request.properties?.responseTopic).toBeUndefined()
  reply(on.connection, 'ask', { response: 2, isDisposed: true, id: envelopeOf(request).id })
  await moment()
  expect(asked.value).toBe(2)
  await finish(on)
})
