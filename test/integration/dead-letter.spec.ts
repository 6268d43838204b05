import { describe, expect, it, vi } from 'vitest'
import { deadLetter, type HandlerOptions } from '../../src/index.js'
import type { PeerConnection } from '../../src/testing/index.js'
import { holdClock } from '../support/held-clock.js'
import { comeBack, finish, goOffline, pass } from '../support/publisher-on-peer.js'
import {
  acks,
  countOf,
  json,
  KEPT,
  qos1,
  type SubscriberOnPeer,
  settle,
  subscriberOnPeer,
  VERSIONS,
} from '../support/subscriber-on-peer.js'

holdClock()

const NOON = new Date('2030-01-02T12:00:00.000Z')
const POLICY: HandlerOptions = { onFailure: deadLetter('dead') }

async function failing(
  options: Parameters<typeof subscriberOnPeer>[0],
  handlerOptions: HandlerOptions = {},
  pattern = 'in/+',
): Promise<SubscriberOnPeer> {
  const parts = await subscriberOnPeer(options)
  const fail = (): never => {
    throw new Error('it is broken')
  }
  parts.mqtt.subscribe(pattern, fail, { ...POLICY, ...handlerOptions })
  await parts.connection.grant()
  return parts
}

/** Receives the next dead letter and responds to it. */
async function acknowledge(connection: PeerConnection, reasonCode = 0) {
  const letter = await connection.find('publish')
  connection.send({ cmd: 'puback', messageId: letter.messageId ?? 0, reasonCode })
  return letter
}

describe('a broker that supports QoS 0 only', () => {
  const QOS_0 = { properties: { maximumQoS: 0 } }

  it('receives dead letters at QoS 0, and the original is acknowledged once its dead letter is sent', async () => {
    const parts = await failing({})
    await goOffline(parts)
    const connection = await comeBack(parts, QOS_0)
    await connection.grant()
    for (const id of [3, 4]) connection.send(qos1('in/7', id))
    for (let count = 0; count < 2; count += 1)
      expect(await connection.find('publish')).toMatchObject({ topic: 'dead', qos: 0, retain: false })
    await settle(parts.mqtt)
    expect(acks(connection)).toEqual([3, 4])
    expect(parts.mqtt.stats().inbound).toMatchObject({ deadLettered: 2, running: 0 })
    const warning =
      'dead letters for "dead" are published at QoS 0, because the broker does not support QoS 1; they may be lost'
    expect(parts.log.visible.filter(text => text === warning)).toHaveLength(1)
    await finish(parts)
  })

  it('receives them at QoS 0 even if their handler failed on another connection', async () => {
    const parts = await failing({ ...KEPT })
    parts.connection.send(qos1('in/7', 3))
    await parts.connection.find('publish')
    await goOffline(parts)
    const connection = await comeBack(parts, { ...QOS_0, sessionPresent: true })
    await pass(5_000, 100)
    expect(await connection.find('publish')).toMatchObject({ topic: 'dead', qos: 0 })
    await settle(parts.mqtt)
    expect(parts.mqtt.stats().inbound).toMatchObject({ deadLettered: 1, running: 0 })
    await finish(parts)
  })
})

describe('a dead letter on MQTT 5', () => {
  it('has the original payload and properties, and the details of the failure', async () => {
    const parts = await failing({}, { retries: { attempts: 1, delayMs: [5] } })
    const { mqtt, connection } = parts
    const payload = Buffer.from([0xff, 0x00, 0x80])
    const correlationData = Buffer.from([1])
    connection.send({
      ...qos1('in/7', 3),
      payload,
      retain: true,
      properties: {
        contentType: 'image/x',
        responseTopic: 'responses',
        correlationData,
        messageExpiryInterval: 60,
        userProperties: { trace: ['1', '2'], 'dead-letter-topic': 'forged' },
      },
    })
    await pass(20, 5)
    const letter = await connection.find('publish')
    expect(letter).toMatchObject({ topic: 'dead', qos: 1, retain: false, dup: false, payload })
    const { userProperties, ...properties } = letter.properties ?? {}
    expect(properties).toEqual({ contentType: 'image/x', responseTopic: 'responses', correlationData })
    expect({ ...userProperties }).toEqual({
      trace: ['1', '2'],
      'dead-letter-topic': 'in/7',
      'dead-letter-pattern': 'in/+',
      'dead-letter-reason': expect.stringMatching(/not UTF-8|could not be decoded/),
      'dead-letter-attempts': '2',
      'dead-letter-time': expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/),
    })
    expect(acks(connection)).toEqual([])
    connection.send({ cmd: 'puback', messageId: letter.messageId ?? 0, reasonCode: 0 })
    await settle(mqtt)
    expect(acks(connection)).toEqual([3])
    expect(mqtt.stats().inbound).toMatchObject({ handled: 0, failed: 0, deadLettered: 1 })
    await finish(parts)
  })
})

describe('a dead letter on MQTT 3.1.1', () => {
  it.each([
    ['text', Buffer.from('"Kälte"'), { encoding: 'utf8', payload: '"Kälte"' }],
    ['bytes that are no text', Buffer.from([0xff, 0x00]), { encoding: 'base64', payload: '/wA=' }],
    ['nothing', Buffer.alloc(0), { encoding: 'utf8', payload: '' }],
  ])('is JSON that contains the message: %s', async (_what, payload, expected) => {
    const parts = await failing({ protocolVersion: 4 }, { codec: 'bytes' })
    const { mqtt, connection } = parts
    connection.send({ ...qos1('in/7', 3), payload, retain: true })
    await settle(mqtt)
    const letter = await acknowledge(connection)
    expect(letter).toMatchObject({ topic: 'dead', qos: 1, retain: false })
    expect(JSON.parse(letter.payload.toString())).toEqual({
      topic: 'in/7',
      pattern: 'in/+',
      reason: 'it is broken',
      attempts: 1,
      time: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/),
      qos: 1,
      retain: true,
      ...expected,
    })
    await settle(mqtt)
    expect(acks(connection)).toEqual([3])
    await finish(parts)
  })
})

describe.each(VERSIONS)('MQTT %i: a dead letter', protocolVersion => {
  it('is acknowledged before the original and the messages behind it are', async () => {
    const parts = await failing({ protocolVersion })
    const { mqtt, connection } = parts
    mqtt.subscribe('other', () => {})
    await connection.grant()
    connection.send(qos1('in/1', 1))
    connection.send(qos1('other', 2))
    await settle(mqtt)
    await pass(20_000)
    expect(acks(connection)).toEqual([])
    expect(mqtt.stats().inbound).toMatchObject({ handled: 1, running: 1 })
    await acknowledge(connection)
    await settle(mqtt)
    expect(acks(connection)).toEqual([1, 2])
    expect(countOf(connection, 'publish')).toBe(1)
    await finish(parts)
  })

  it('is not published for a message on the dead letter topic itself', async () => {
    const parts = await failing({ protocolVersion }, {}, '#')
    const { mqtt, connection } = parts
    connection.send(qos1('dead', 1))
    await settle(mqtt)
    expect(acks(connection)).toEqual([1])
    expect(countOf(connection, 'publish')).toBe(0)
    expect(mqtt.stats().inbound).toMatchObject({ handled: 1, failed: 1, deadLettered: 0 })
    await finish(parts)
  })

  it('is also published for a QoS 0 message', async () => {
    const parts = await failing({ protocolVersion })
    const { mqtt, connection } = parts
    connection.send(json('in/1', 1))
    await settle(mqtt)
    await acknowledge(connection)
    await settle(mqtt)
    expect(acks(connection)).toEqual([])
    expect(mqtt.stats().inbound).toMatchObject({ deadLettered: 1, running: 0 })
    await finish(parts)
  })

  it('waits during an outage, and the redelivered message is acknowledged after it', async () => {
    const parts = await failing({ protocolVersion, ...KEPT })
    const { mqtt, connection } = parts
    connection.send(qos1('in/1', 1))
    await settle(mqtt)
    expect(await connection.find('publish')).toMatchObject({ topic: 'dead' })
    await goOffline(parts)
    const second = await comeBack(parts, { sessionPresent: true })
    second.send(qos1('in/1', 1, 1, true))
    await settle(mqtt)
    expect(acks(second)).toEqual([])
    expect(await acknowledge(second)).toMatchObject({ topic: 'dead', dup: true })
    await settle(mqtt)
    expect(acks(second)).toEqual([1])
    expect(mqtt.stats().inbound).toMatchObject({ received: 2, deadLettered: 1, repeated: 1 })
    await finish(parts)
  })
})

describe('a dead letter that the broker refuses', () => {
  it('is retried with growing delays, while the original stays unacknowledged', async () => {
    const parts = await failing({})
    const { mqtt, connection, log } = parts
    connection.send(qos1('in/1', 1))
    await settle(mqtt)
    for (const delayMs of [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]) {
      await acknowledge(connection, 0x87)
      await settle(mqtt)
      const before = countOf(connection, 'publish')
      await pass(delayMs - 10)
      expect(countOf(connection, 'publish')).toBe(before)
      await pass(10)
      await settle(mqtt)
      expect(countOf(connection, 'publish')).toBe(before + 1)
      expect(acks(connection)).toEqual([])
    }
    await acknowledge(connection)
    await settle(mqtt)
    expect(acks(connection)).toEqual([1])
    expect(mqtt.stats().inbound).toMatchObject({ deadLettered: 1, running: 0 })
    expect(
      log.visible.filter(line => line.includes('a dead letter cannot be published')).length,
    ).toBeGreaterThan(1)
    await finish(parts)
  })

  it('is discarded after three attempts for a QoS 0 message, which the broker does not store', async () => {
    const parts = await failing({})
    const { mqtt, connection } = parts
    connection.send(json('in/1', 1))
    for (let attempt = 0; attempt < 3; attempt += 1) {
      await settle(mqtt)
      await acknowledge(connection, 0x87)
      await pass(30_000, 1_000)
    }
    await settle(mqtt)
    expect(countOf(connection, 'publish')).toBe(3)
    expect(mqtt.stats().inbound).toMatchObject({ handled: 1, failed: 1, deadLettered: 0, running: 0 })
    await finish(parts)
  })

  it('is discarded when the application ends, and the broker keeps the original', async () => {
    const parts = await failing(KEPT)
    const { mqtt, connection } = parts
    connection.send(qos1('in/1', 1))
    await settle(mqtt)
    await acknowledge(connection, 0x87)
    await settle(mqtt)
    await finish(parts)
    await settle(mqtt)
    expect(acks(connection)).toEqual([])
    expect(mqtt.stats().inbound).toMatchObject({ givenBack: 1, running: 0, waiting: 0 })
  })
})

it.each(['', 'a/#', 'a/+', 'a\u0000'])('deadLetter(%j) throws', topic => {
  expect(() => deadLetter(topic)).toThrow(expect.objectContaining({ code: 'INVALID_TOPIC_NAME' }))
})

it('a dead letter contains its time', async () => {
  vi.setSystemTime(NOON)
  const parts = await failing({})
  parts.connection.send(qos1('in/1', 1))
  await settle(parts.mqtt)
  const letter = await acknowledge(parts.connection)
  const time = new Date(String(letter.properties?.userProperties?.['dead-letter-time']))
  expect(time.getTime() - NOON.getTime()).toBeLessThan(1_000)
  await finish(parts)
})
