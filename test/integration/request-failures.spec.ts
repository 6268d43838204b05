import { describe, expect, it, vi } from 'vitest'
import { Asked, firstRequest, moment, publishesOf, responseTo } from '../support/asking.js'
import { holdClock } from '../support/held-clock.js'
import { finish, goOffline, pass, publisherOnPeer } from '../support/publisher-on-peer.js'

holdClock()

const NOT_AUTHORIZED = 0x87
const NO_MATCHING_SUBSCRIBERS = 0x10

describe('a request that exceeds its time limit', () => {
  it('fails with TIMEOUT, and not before', async () => {
    const on = await publisherOnPeer()
    await firstRequest(on).then(({ request }) => on.connection.send(responseTo(request, { value: 1 })))
    const asked = new Asked(on.mqtt.request('ask', 1, { timeoutMs: 50 }))
    await pass(49, 1)
    expect(asked.state).toBe('open')
    await pass(1)
    expect(asked).toMatchObject({ code: 'TIMEOUT' })
    expect(asked.error?.message).toBe('no response to the request on "ask" within 50 ms')
    expect(on.mqtt.stats().requests.open).toBe(0)
    await finish(on)
  })

  it('also fails while the response topic is not granted, and is not sent', async () => {
    const on = await publisherOnPeer()
    const asked = new Asked(on.mqtt.request('ask', 1, { timeoutMs: 50 }))
    await pass(50)
    expect(asked.code).toBe('TIMEOUT')
    await on.connection.grant()
    await moment()
    expect(publishesOf(on.connection)).toEqual([])
    await finish(on)
  })

  it('has a limit of 30 seconds by default', async () => {
    const on = await publisherOnPeer()
    const { asked } = await firstRequest(on)
    await pass(29_900)
    expect(asked.state).toBe('open')
    await pass(100)
    expect(asked.code).toBe('TIMEOUT')
    await finish(on)
  })
})

describe('a request whose signal is aborted', () => {
  it('before it starts: fails at once, and is not sent', async () => {
    const on = await publisherOnPeer()
    const reason = new Error('changed my mind')
    const asked = new Asked(on.mqtt.request('ask', 1, { signal: AbortSignal.abort(reason) }))
    await moment()
    expect(asked).toMatchObject({ code: 'ABORTED', error: { cause: reason } })
    expect(on.connection.received.filter(({ cmd }) => cmd === 'subscribe' || cmd === 'publish')).toEqual([])
    await finish(on)
  })

  it('while it waits for the response topic: is not sent', async () => {
    const on = await publisherOnPeer()
    const aborter = new AbortController()
    const asked = new Asked(on.mqtt.request('ask', 1, { signal: aborter.signal }))
    aborter.abort()
    await on.connection.grant()
    await moment()
    expect(asked.code).toBe('ABORTED')
    expect(publishesOf(on.connection)).toEqual([])
    await finish(on)
  })

  it('while it waits for its response: fails, and leaves no listener', async () => {
    const on = await publisherOnPeer()
    const aborter = new AbortController()
    const remove = vi.spyOn(aborter.signal, 'removeEventListener')
    const asked = new Asked(on.mqtt.request('ask', 1, { signal: aborter.signal }))
    await on.connection.grant()
    await on.connection.expect('publish')
    aborter.abort('late')
    await moment()
    expect(asked).toMatchObject({ code: 'ABORTED', error: { cause: 'late' } })
    expect(remove).toHaveBeenCalledWith('abort', expect.any(Function))
    await finish(on)
  })
})

describe('a request and its connection', () => {
  it('fails when the connection is lost', async () => {
    const on = await publisherOnPeer()
    const { asked } = await firstRequest(on)
    await goOffline(on)
    expect(asked.code).toBe('CONNECTION_LOST')
    await finish(on)
  })

  it('fails at once without a connection', async () => {
    const on = await publisherOnPeer()
    await goOffline(on)
    const asked = new Asked(on.mqtt.request('ask', 1))
    await moment()
    expect(asked.code).toBe('CONNECTION_LOST')
    expect(on.mqtt.stats().requests.open).toBe(0)
    await finish(on)
  })

  it('fails when the application closes the connection, and afterwards', async () => {
    const on = await publisherOnPeer()
    const { asked } = await firstRequest(on)
    await finish(on)
    const after = new Asked(on.mqtt.request('ask', 1))
    await moment()
    expect([asked.code, after.code]).toEqual(['CONNECTION_CLOSED', 'CONNECTION_CLOSED'])
  })
})

describe('a request that the broker refuses', () => {
  it('by its response topic: SUBSCRIBE_REFUSED', async () => {
    const on = await publisherOnPeer()
    const asked = new Asked(on.mqtt.request('ask', 1))
    await on.connection.grant(NOT_AUTHORIZED)
    await moment()
    expect(asked).toMatchObject({ code: 'SUBSCRIBE_REFUSED', error: { reasonCode: NOT_AUTHORIZED } })
    expect(publishesOf(on.connection)).toEqual([])
    await finish(on)
  })

  it('because nobody subscribes to its topic: NO_RESPONDER', async () => {
    const on = await publisherOnPeer()
    const asked = new Asked(on.mqtt.request('ask', 1, { qos: 1 }))
    await on.connection.grant()
    const { messageId = 0 } = await on.connection.expect('publish')
    on.connection.send({ cmd: 'puback', messageId, reasonCode: NO_MATCHING_SUBSCRIBERS })
    await moment()
    expect(asked).toMatchObject({ code: 'NO_RESPONDER', error: { reasonCode: NO_MATCHING_SUBSCRIBERS } })
    await finish(on)
  })

  it('by its publish: NOT_SENT, with the reason', async () => {
    const on = await publisherOnPeer()
    const asked = new Asked(on.mqtt.request('ask', 1, { qos: 1 }))
    await on.connection.grant()
    const { messageId = 0 } = await on.connection.expect('publish')
    const properties = { reasonString: 'not for you' }
    on.connection.send({ cmd: 'puback', messageId, reasonCode: NOT_AUTHORIZED, properties })
    await moment()
    expect(asked).toMatchObject({ code: 'NOT_SENT', error: { reasonCode: NOT_AUTHORIZED } })
    expect(asked.error?.message).toContain('not for you')
    await finish(on)
  })

  it('in advance, by its limits', async () => {
    const on = await publisherOnPeer({}, { properties: { maximumQoS: 1, maximumPacketSize: 1_000 } })
    const qos2 = new Asked(on.mqtt.request('ask', 1, { qos: 2 }))
    const long = new Asked(on.mqtt.request('ask', 'x'.repeat(1_000)))
    await on.connection.grant()
    await moment()
    expect([qos2.code, long.code]).toEqual(['QOS_NOT_SUPPORTED', 'PACKET_TOO_LARGE'])
    expect(on.mqtt.stats().requests.open).toBe(0)
    await finish(on)
  })

  it('is one of too many', async () => {
    const on = await publisherOnPeer({ requests: { maxOpen: 2 } })
    const { asked, request } = await firstRequest(on)
    const [second, third] = [1, 2].map(value => new Asked(on.mqtt.request('ask', value)))
    await moment()
    expect([second?.state, third?.code]).toEqual(['open', 'TOO_MANY_REQUESTS'])
    on.connection.send(responseTo(request, { value: 1 }))
    await moment()
    expect(asked.state).toBe('responded')
    const fourth = new Asked(on.mqtt.request('ask', 4))
    await moment()
    expect(fourth.state).toBe('open')
    expect(on.mqtt.stats().requests.open).toBe(2)
    await finish(on)
  })
})

describe('an error response', () => {
  it.each([
    [{ status: 'error', message: 'too warm', code: 'E' }, 'too warm'],
    ['in words', 'in words'],
    [{ code: 'E' }, 'the responder failed'],
    [null, 'the responder failed'],
  ])('%j is REQUEST_FAILED with the complete error, which does not appear in logs', async (value, text) => {
    const on = await publisherOnPeer()
    const { asked, request } = await firstRequest(on)
    on.connection.send(responseTo(request, { value, status: 'error' }))
    await moment()
    expect(asked.error).toMatchObject({ code: 'REQUEST_FAILED', message: text, response: value })
    expect(Object.keys(asked.error ?? {})).not.toContain('response')
    expect(JSON.stringify(asked.error)).not.toContain('"E"')
    await finish(on)
  })

  it.each([undefined, 'next', 'error'])('that cannot be decoded, with status %s', async status => {
    const on = await publisherOnPeer()
    const { asked, request } = await firstRequest(on)
    const value = Buffer.from('{"secret":')
    on.connection.send(responseTo(request, { value, ...(status === undefined ? {} : { status }) }))
    await moment()
    expect(asked.code).toBe('PAYLOAD_NOT_DECODABLE')
    expect(asked.error?.message).not.toContain('secret')
    await finish(on)
  })
})

describe('a request with a mistake', () => {
  it('is rejected before anything is sent', async () => {
    const on = await publisherOnPeer()
    const circle: unknown[] = []
    circle.push(circle)
    const all = [
      new Asked(on.mqtt.request('ask/#', 1)),
      new Asked(on.mqtt.request('ask', 1, { timeoutMs: 0 })),
      new Asked(on.mqtt.request('ask', circle)),
    ]
    await moment()
    expect(all.map(({ code }) => code)).toEqual([
      'INVALID_TOPIC_NAME',
      'INVALID_OPTION',
      'PAYLOAD_NOT_ENCODABLE',
    ])
    expect(on.mqtt.stats().requests.open).toBe(0)
    await finish(on)
  })
})
