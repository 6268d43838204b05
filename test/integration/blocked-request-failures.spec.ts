import { describe, expect, it } from 'vitest'
import { parseTopicFilter } from '../../src/core/topic/topic-filter.js'
import type { RequestOptions } from '../../src/index.js'
import { Asked, publishesOf, responseTo } from '../support/asking.js'
import { holdClock } from '../support/held-clock.js'
import { finish, pass } from '../support/publisher-on-peer.js'
import {
  acks,
  json,
  qos1,
  type SubscriberOnPeer,
  settle,
  subscriberOnPeer,
  VERSIONS,
} from '../support/subscriber-on-peer.js'

holdClock()

const QUIET_MS = 1_000
const WINDOW = 12

interface Case {
  readonly protocolVersion?: 4 | 5
  readonly request?: RequestOptions
  /** The connection takes the requests itself, at QoS 1. */
  readonly takesRequests?: boolean
  readonly responseQos?: 0 | 1
  readonly count?: number
}

/** Events at QoS 1 whose handlers request on the same connection and wait; responses are delivered at QoS 1. */
async function waitingHandlers({
  protocolVersion = 5,
  request = { qos: 1 },
  takesRequests = false,
  responseQos = 1,
  count = WINDOW,
}: Case) {
  const parts = await subscriberOnPeer({
    protocolVersion,
    inbound: { maxInFlight: WINDOW },
    requests: { responseQos },
  })
  const { mqtt, session, connection } = parts
  if (takesRequests) session.requester.takesAtQos1(parseTopicFilter('ask'))
  const asked: Asked[] = []
  mqtt.subscribe('events/+', async ({ payload }) => {
    const response = mqtt.request('ask', payload, { timeoutMs: 60_000, ...request })
    asked.push(new Asked(response))
    await response
  })
  await connection.grant()
  for (let id = 1; id <= count; id += 1) connection.send(qos1(`events/${id}`, id))
  await settle(mqtt)
  const subscribe = connection.received.findLast(({ cmd }) => cmd === 'subscribe')
  connection.send({ cmd: 'suback', messageId: subscribe?.messageId ?? 0, granted: [1] })
  await settle(mqtt)
  return { ...parts, asked, codes: () => asked.map(({ code }) => code) }
}

async function end(parts: SubscriberOnPeer): Promise<void> {
  await parts.connection.cut()
  await finish(parts)
}

const all = (code: string | undefined, count = WINDOW) => Array.from({ length: count }, () => code)

describe.each(VERSIONS)(
  'MQTT %i: handlers that wait for responses and fill the window of the broker',
  version => {
    it.each([0, 1] as const)(
      'fail with REQUEST_BLOCKED when the broker has more to deliver, at QoS %i',
      async qos => {
        const parts = await waitingHandlers({ protocolVersion: version, request: { qos } })
        await pass(QUIET_MS - 10, 10)
        expect(parts.codes()).toEqual(all(undefined))
        await pass(20, 10)
        expect(parts.codes()).toEqual(['REQUEST_BLOCKED', ...all(undefined, WINDOW - 1)])
        await settle(parts.mqtt)
        expect(acks(parts.connection)).toEqual([1])
        parts.connection.send(qos1('events/more', 100))
        await pass(QUIET_MS + 100, 10)
        expect(parts.codes()).toEqual(all('REQUEST_BLOCKED', WINDOW + 1))
        await settle(parts.mqtt)
        expect(acks(parts.connection)).toHaveLength(WINDOW + 1)
        expect(parts.asked[0]?.error?.message).toContain('deliver requests and responses at QoS 0')
        expect(parts.mqtt.stats().requests.open).toBe(0)
        await end(parts)
      },
    )

    it('keep waiting for a slow responder, except one, when the broker has nothing more to deliver', async () => {
      const parts = await waitingHandlers({ protocolVersion: version })
      await pass(10 * QUIET_MS, 100)
      expect(parts.codes()).toEqual(['REQUEST_BLOCKED', ...all(undefined, WINDOW - 1)])
      await end(parts)
    })

    it('have twice the time after a request failed without need', async () => {
      const parts = await waitingHandlers({ protocolVersion: version })
      await pass(5 * QUIET_MS, 100)
      parts.connection.send(qos1('events/later', 100))
      await settle(parts.mqtt)
      const oneFailed = ['REQUEST_BLOCKED', ...all(undefined)]
      await pass(2 * QUIET_MS - 100, 10)
      expect(parts.codes()).toEqual(oneFailed)
      await pass(200, 10)
      expect(parts.codes()).toEqual(['REQUEST_BLOCKED', ...oneFailed.slice(0, -1)])
      await end(parts)
    })

    it('do not fail while QoS 1 messages continue to arrive', async () => {
      const parts = await waitingHandlers({ protocolVersion: version, count: WINDOW - 2 })
      for (let n = 0; n < 5; n += 1) {
        await pass(QUIET_MS / 2, 10)
        parts.connection.send(qos1('nobody', 100 + n))
        await settle(parts.mqtt)
      }
      expect(parts.codes()).toEqual(all(undefined, WINDOW - 2))
      await end(parts)
    })

    it('do not fail if responses are delivered at QoS 0', async () => {
      const parts = await waitingHandlers({ protocolVersion: version, responseQos: 0 })
      await pass(10 * QUIET_MS, 100)
      expect(parts.codes()).toEqual(all(undefined))
      await end(parts)
    })

    it('do not fail while another message is handled that may make room', async () => {
      const parts = await waitingHandlers({ protocolVersion: version, count: 0 })
      const { mqtt, connection } = parts
      mqtt.subscribe('slow', () => new Promise(() => {}))
      connection.send(qos1('slow', 1))
      for (let id = 2; id <= WINDOW; id += 1) connection.send(qos1(`events/${id}`, id))
      await pass(10 * QUIET_MS, 100)
      expect(parts.codes()).toEqual(all(undefined, WINDOW - 1))
      await end(parts)
    })

    it('also fail in one lane in which only the first has started', async () => {
      const parts = await waitingHandlers({ protocolVersion: version, count: 0 })
      for (let id = 1; id <= WINDOW; id += 1) parts.connection.send(qos1('events/one', id))
      await settle(parts.mqtt)
      expect(parts.asked).toHaveLength(1)
      await pass(QUIET_MS + 100, 10)
      expect(parts.codes()[0]).toBe('REQUEST_BLOCKED')
      await end(parts)
    })

    it('end as CONNECTION_LOST when the connection is lost', async () => {
      const parts = await waitingHandlers({ protocolVersion: version })
      await parts.connection.cut()
      await pass(2 * QUIET_MS, 10)
      expect(parts.codes()).toEqual(all('CONNECTION_LOST'))
      await finish(parts)
    })
  },
)

describe('a connection that receives both requests and responses at QoS 1', () => {
  it('fails the requests of the oldest message at once, as long as the window is full', async () => {
    const parts = await waitingHandlers({ takesRequests: true, count: WINDOW - 1 })
    expect(parts.codes()).toEqual(all(undefined, WINDOW - 1))
    parts.connection.send(qos1('events/last', WINDOW))
    await settle(parts.mqtt)
    expect(parts.codes()).toEqual(['REQUEST_BLOCKED', ...all(undefined, WINDOW - 1)])
    expect(acks(parts.connection)).toEqual([1])
    for (const request of publishesOf(parts.connection).slice(1))
      parts.connection.send(responseTo(request, { value: 2 }))
    await settle(parts.mqtt)
    expect(parts.asked.filter(({ state }) => state === 'responded')).toHaveLength(WINDOW - 1)
    expect(acks(parts.connection)).toHaveLength(WINDOW)
    await end(parts)
  })
})

describe('fewer than ten messages on MQTT 3.1.1', () => {
  it('do not fill a window', async () => {
    const parts = await waitingHandlers({ protocolVersion: 4, count: 9 })
    await pass(10 * QUIET_MS, 100)
    expect(parts.codes()).toEqual(all(undefined, 9))
    await end(parts)
  })

  it('do not fail requests after a broker has delivered more', async () => {
    const parts = await waitingHandlers({ protocolVersion: 4 })
    const requests = publishesOf(parts.connection)
    const { id } = JSON.parse(String(requests[0]?.payload))
    parts.connection.send(json('ask/reply', { id, response: 2, isDisposed: true }))
    await pass(10 * QUIET_MS, 100)
    expect(parts.codes()).toEqual(all(undefined))
    await end(parts)
  })
})
