import { describe, expect, it } from 'vitest'
import { Asked, moment, publishesOf, responseTo } from '../support/asking.js'
import { holdClock } from '../support/held-clock.js'
import {
  finish,
  goOffline,
  type PublisherOnPeer,
  pass,
  publisherOnPeer,
} from '../support/publisher-on-peer.js'

holdClock()

const CANCEL_TOPIC = 'responders/7'

/** Asks for a stream, whose request the broker has. */
async function askForStream(on: PublisherOnPeer, options: Parameters<typeof on.mqtt.requestStream>[2] = {}) {
  const stream = on.mqtt.requestStream('ask', 1, options)
  await on.connection.grant()
  const request = await on.connection.expect('publish')
  const next = (value: unknown): void =>
    on.connection.send(
      responseTo(request, {
        value,
        properties: { userProperties: { status: 'next' }, responseTopic: CANCEL_TOPIC },
      }),
    )
  const end = (values?: string): void =>
    on.connection.send(
      responseTo(request, {
        properties: { userProperties: { status: 'end', ...(values === undefined ? {} : { values }) } },
      }),
    )
  const fail = (value: unknown): void => on.connection.send(responseTo(request, { status: 'error', value }))
  return { stream, request, next, end, fail }
}

const cancels = ({ connection }: PublisherOnPeer) =>
  publishesOf(connection).filter(({ properties }) => properties?.userProperties?.['status'] === 'cancel')

describe('a stream of responses', () => {
  it('says in its request that it accepts several, and ends with the end of the stream', async () => {
    const on = await publisherOnPeer()
    const { stream, request, next, end } = await askForStream(on, {
      properties: { userProperties: { trace: 'a' } },
    })
    expect(request.properties?.userProperties).toEqual({ trace: 'a', stream: 'true', lease: '30' })
    for (const value of [1, 2, 3]) next(value)
    end()
    const all: unknown[] = []
    for await (const value of stream) all.push(value)
    expect(all).toEqual([1, 2, 3])
    expect(cancels(on)).toEqual([])
    expect(on.mqtt.stats().requests).toMatchObject({ open: 0, unexpectedResponses: 0 })
    await finish(on)
  })

  it.each(['3', '2'])(
    'ends if no response is missing: 3 arrived, and the responder has sent %s',
    async sent => {
      const on = await publisherOnPeer()
      const { stream, next, end } = await askForStream(on)
      for (const value of [1, 2, 3]) next(value)
      end(sent)
      const all: unknown[] = []
      for await (const value of stream) all.push(value)
      expect(all).toEqual([1, 2, 3])
      await finish(on)
    },
  )

  it('fails at its end if responses are missing, after those that arrived', async () => {
    const on = await publisherOnPeer()
    const { stream, next, end } = await askForStream(on)
    for (const value of [1, 3]) next(value)
    end('3')
    await moment()
    expect([await stream.next(), await stream.next()]).toEqual([
      { done: false, value: 1 },
      { done: false, value: 3 },
    ])
    await expect(stream.next()).rejects.toMatchObject({
      code: 'RESPONSE_LOST',
      message: expect.stringContaining('1 of 3 responses to the request on "ask" did not arrive'),
    })
    expect(await stream.next()).toEqual({ done: true, value: undefined })
    expect(on.mqtt.stats().requests).toMatchObject({ open: 0, unexpectedResponses: 0 })
    await finish(on)
  })

  it.each(['', 'many', '-1', 'NaN'])('ignores the number %j in the end', async sent => {
    const on = await publisherOnPeer()
    const { stream, end } = await askForStream(on)
    end(sent)
    expect(await stream.next()).toEqual({ done: true, value: undefined })
    await finish(on)
  })

  it('passes values to waiting readers as they arrive', async () => {
    const on = await publisherOnPeer()
    const { stream, next, end } = await askForStream(on)
    const readers = [1, 2, 3].map(() => new Asked(stream.next()))
    next('a')
    await moment()
    expect(readers.map(({ state }) => state)).toEqual(['responded', 'open', 'open'])
    end()
    await moment()
    expect(readers.map(({ value }) => value)).toEqual([
      { done: false, value: 'a' },
      { done: true, value: undefined },
      { done: true, value: undefined },
    ])
    await finish(on)
  })

  it('with one response without a status ends with it', async () => {
    const on = await publisherOnPeer()
    const { stream, request } = await askForStream(on)
    on.connection.send(responseTo(request, { value: 'only' }))
    expect(await stream.next()).toEqual({ done: false, value: 'only' })
    expect(await stream.next()).toEqual({ done: true, value: undefined })
    await finish(on)
  })

  it('fails once after the earlier values, and has then ended', async () => {
    const on = await publisherOnPeer()
    const { stream, next, fail } = await askForStream(on)
    next(1)
    fail({ message: 'too warm' })
    await moment()
    expect(await stream.next()).toEqual({ done: false, value: 1 })
    await expect(stream.next()).rejects.toMatchObject({ code: 'REQUEST_FAILED', message: 'too warm' })
    expect(await stream.next()).toEqual({ done: true, value: undefined })
    await finish(on)
  })

  it('fails at the time limit between two responses, and cancels at the responder', async () => {
    const on = await publisherOnPeer()
    const { stream, next, request } = await askForStream(on, { timeoutMs: 100 })
    for (const value of [1, 2, 3]) {
      await pass(90, 1)
      next(value)
      await moment()
    }
    const read = [1, 2, 3, 4].map(() => new Asked(stream.next()))
    await pass(90, 1)
    expect(read.map(({ state }) => state)).toEqual(['responded', 'responded', 'responded', 'open'])
    await pass(10, 1)
    expect(read[3]?.code).toBe('TIMEOUT')
    await moment()
    expect(cancels(on)).toMatchObject([
      { topic: CANCEL_TOPIC, properties: { correlationData: request.properties?.correlationData } },
    ])
    await finish(on)
  })

  it('fails with its connection, and cancels nothing', async () => {
    const on = await publisherOnPeer()
    const { stream, next } = await askForStream(on)
    next(1)
    await moment()
    await goOffline(on)
    expect(await stream.next()).toEqual({ done: false, value: 1 })
    await expect(stream.next()).rejects.toMatchObject({ code: 'CONNECTION_LOST' })
    expect(cancels(on)).toEqual([])
    await finish(on)
  })

  it('whose request could not be sent fails in the loop', async () => {
    const on = await publisherOnPeer()
    const stream = on.mqtt.requestStream('ask', 1, { signal: AbortSignal.abort() })
    await expect(stream.next()).rejects.toMatchObject({ code: 'ABORTED' })
    expect(await stream.next()).toEqual({ done: true, value: undefined })
    await finish(on)
  })
})

describe('a loop that is left', () => {
  it('sends a cancel to the responder at QoS 1, with the Correlation Data', async () => {
    const on = await publisherOnPeer()
    const { stream, request, next } = await askForStream(on)
    next(1)
    next(2)
    await moment()
    for await (const value of stream) {
      expect(value).toBe(1)
      break
    }
    await moment()
    const [cancel, ...more] = cancels(on)
    expect(more).toEqual([])
    expect(cancel).toMatchObject({ topic: CANCEL_TOPIC, qos: 1, retain: false, payload: Buffer.alloc(0) })
    expect(cancel?.properties?.correlationData).toEqual(request.properties?.correlationData)
    expect(on.mqtt.stats().requests.open).toBe(0)
    expect(await stream.next()).toEqual({ done: true, value: undefined })
    await finish(on)
  })

  it('before the first response: cancels at the responder once its topic is known', async () => {
    const on = await publisherOnPeer()
    const { stream, next } = await askForStream(on)
    await stream.return?.()
    await moment()
    expect(cancels(on)).toEqual([])
    next(1)
    await moment()
    expect(cancels(on)).toHaveLength(1)
    expect(on.mqtt.stats().requests).toMatchObject({ open: 0, unexpectedResponses: 1 })
    await finish(on)
  })

  it('after the end: sends no cancel', async () => {
    const on = await publisherOnPeer()
    const { stream, next, end } = await askForStream(on)
    next(1)
    end()
    await moment()
    await stream.return?.()
    await moment()
    expect(cancels(on)).toEqual([])
    await finish(on)
  })

  it('by its signal: fails with ABORTED, and sends a cancel to the responder', async () => {
    const on = await publisherOnPeer()
    const aborter = new AbortController()
    const { stream, next } = await askForStream(on, { signal: aborter.signal })
    next(1)
    expect(await stream.next()).toEqual({ done: false, value: 1 })
    aborter.abort()
    await expect(stream.next()).rejects.toMatchObject({ code: 'ABORTED' })
    await moment()
    expect(cancels(on)).toHaveLength(1)
    await finish(on)
  })

  it('sends no cancel if no response named a topic', async () => {
    const on = await publisherOnPeer()
    const { stream, request } = await askForStream(on)
    on.connection.send(responseTo(request, { value: 1, status: 'next' }))
    await moment()
    await stream.return?.()
    await moment()
    expect(cancels(on)).toEqual([])
    await finish(on)
  })
})

it('at most 1,000 responses wait for a slow loop; a further one ends it and cancels at the responder', async () => {
  const on = await publisherOnPeer()
  const { stream, next } = await askForStream(on)
  for (let index = 0; index < 1_001; index += 1) next(index)
  await moment()
  expect(cancels(on)).toHaveLength(1)
  for (let index = 0; index < 1_000; index += 1)
    expect(await stream.next()).toEqual({ done: false, value: index })
  await expect(stream.next()).rejects.toMatchObject({ code: 'REQUEST_FAILED' })
  expect(await stream.next()).toEqual({ done: true, value: undefined })
  expect(on.mqtt.stats().requests.open).toBe(0)
  await finish(on)
})
