import { generate } from 'mqtt-packet'
import { describe, expect, it } from 'vitest'
import { type PublishProperties, propertiesLength } from '../../../../src/core/protocol/packets.js'
import {
  MAX_REMAINING_LENGTH,
  type PlainPublish,
  publishLength,
  type TopicAlias,
  WriteBatch,
} from '../../../../src/core/protocol/write-batch.js'
import { SeededRandom } from '../../../support/seeded-random.js'

const VERSIONS = [5, 4] as const
const LENGTHS = [127, 128, 16_383, 16_384, 2_097_151, 2_097_152]

interface Publish extends PlainPublish {
  readonly messageId: number | undefined
  readonly alias: TopicAlias | undefined
}

/** The packet as this package writes it, between others that must stay as they are. */
function written(publish: Publish, protocolVersion: 4 | 5): Buffer {
  const batch = new WriteBatch()
  batch.append(Buffer.from('before'))
  const ownBytes =
    publish.properties === undefined || protocolVersion === 4 ? 0 : propertiesLength(publish.properties)
  expect(ownBytes).toBeDefined()
  const size = batch.publish(publish, publish.messageId, publish.alias, protocolVersion === 5, ownBytes)
  batch.append(Buffer.from('behind'))
  expect(batch.bytes).toBe(12 + (size ?? 0))
  const bytes = Buffer.concat(batch.take())
  expect(bytes.subarray(0, 6).toString()).toBe('before')
  expect(bytes.subarray(-6).toString()).toBe('behind')
  if (publish.alias === undefined) expect(publishLength(publish, protocolVersion === 5, ownBytes)).toBe(size)
  return bytes.subarray(6, -6)
}

/** The packet as `mqtt-packet` writes it. */
function generated(publish: Publish, protocolVersion: 4 | 5): Buffer {
  const { topic, payload, qos, retain, messageId, alias, properties } = publish
  return generate(
    {
      cmd: 'publish',
      dup: false,
      topic: alias !== undefined && !alias.isNew ? '' : topic,
      payload,
      qos,
      retain,
      ...(messageId === undefined ? {} : { messageId }),
      properties: { ...properties, ...(alias === undefined ? {} : { topicAlias: alias.alias }) },
    },
    { protocolVersion },
  )
}

function publishOf(fields: Partial<Publish> = {}): Publish {
  const { qos = 0 } = fields
  return {
    topic: 'a/b',
    payload: Buffer.from('{"rate":5}'),
    retain: false,
    messageId: qos === 0 ? undefined : 0x1234,
    alias: undefined,
    ...fields,
    qos,
  }
}

/** Compared as bytes: a difference in a long packet would take minutes to print. */
function expectSame(publish: Publish, protocolVersion: 4 | 5): void {
  const ours = written(publish, protocolVersion)
  const theirs = generated(publish, protocolVersion)
  expect(ours.length).toBe(theirs.length)
  expect(ours.subarray(0, 200).toString('hex')).toBe(theirs.subarray(0, 200).toString('hex'))
  expect(ours.equals(theirs)).toBe(true)
}

const TOPICS = [
  'a',
  'plain/topic',
  'x'.repeat(31),
  'x'.repeat(32),
  'x'.repeat(33),
  '/leading/and/trailing/',
  'with space/and\ttab',
  '$SYS/x',
  'straße/größe',
  'ключ/значение',
  '温度/湿度',
  '🌡/😀',
  `${'x'.repeat(31)}é`,
  'é'.repeat(16),
  'x'.repeat(127),
  'x'.repeat(128),
  'x'.repeat(16_384),
  'é'.repeat(32_767),
  'x'.repeat(65_535),
]
const named = (topic: string) => ({ name: `${topic.slice(0, 20)} (${topic.length})`, topic })

describe.each(VERSIONS)('a PUBLISH of MQTT version %i is equal to that of mqtt-packet', protocolVersion => {
  it.each(TOPICS.map(named))('for the topic $name', ({ topic }) => {
    for (const qos of [0, 1, 2] as const) expectSame(publishOf({ topic, qos }), protocolVersion)
  })

  it.each([0, 1, 2] as const)('for QoS %i with and without retain', qos => {
    for (const retain of [false, true]) expectSame(publishOf({ qos, retain }), protocolVersion)
  })

  it.each([1, 0xff, 0x100, 0x7fff, 0x8000, 0xffff])('for the Packet Identifier %i', messageId => {
    for (const qos of [1, 2] as const) expectSame(publishOf({ qos, messageId }), protocolVersion)
  })

  it.each([0, 1, 2, ...LENGTHS])('for a payload of %i bytes', length => {
    expectSame(publishOf({ payload: Buffer.alloc(length, 0xa5) }), protocolVersion)
  })

  it.each(LENGTHS)('for a Remaining Length of exactly %i', length => {
    for (const qos of [0, 1] as const) {
      const empty = publishOf({ qos, payload: Buffer.alloc(0) })
      // Without the fixed header of a short packet.
      const rest = publishLength(empty, protocolVersion === 5) - 2
      const publish = publishOf({ qos, payload: Buffer.alloc(length - rest, 0xa5) })
      expectSame(publish, protocolVersion)
    }
  })

  it('for thousands of others', () => {
    const random = new SeededRandom(protocolVersion)
    for (let round = 0; round < 3_000; round += 1) {
      const letters = random.pick(['abc/', 'äöü/', '日本/', '😀/'])
      const qos = random.pick([0, 1, 2])
      const publish = publishOf({
        topic: letters.repeat(1 + random.below(60)),
        payload: Buffer.alloc(random.below(300), random.below(256)),
        qos,
        retain: random.chance(0.5),
        messageId: qos === 0 ? undefined : 1 + random.below(65_535),
        alias:
          protocolVersion === 4 || random.chance(0.5)
            ? undefined
            : { alias: 1 + random.below(65_535), isNew: random.chance(0.5) },
      })
      expectSame(publish, protocolVersion)
    }
  })
})

const OWN_PROPERTIES: readonly PublishProperties[] = [
  { contentType: '' },
  { contentType: 'application/json', messageExpiryInterval: 30 },
  { messageExpiryInterval: 0 },
  { messageExpiryInterval: 0xffff_ffff, responseTopic: 'responses/größe/😀' },
  { correlationData: Buffer.alloc(0) },
  { correlationData: Buffer.from([0, 1, 0xff]), responseTopic: 'r'.repeat(200) },
  { userProperties: { status: 'next', größe: '温度', '7': 'a number sorts first' }, contentType: 't' },
  { userProperties: { long: 'x'.repeat(15_900) } },
]

describe('the properties of a PUBLISH are equal to those of mqtt-packet', () => {
  it.each(OWN_PROPERTIES)('for %j', properties => {
    for (const qos of [0, 1, 2] as const) {
      expectSame(publishOf({ qos, properties }), 5)
      expectSame(publishOf({ qos, properties, alias: { alias: 3, isNew: true } }), 5)
      expectSame(publishOf({ qos, properties, alias: { alias: 3, isNew: false } }), 5)
    }
  })

  it('for every number of bytes at which their length grows', () => {
    for (let length = 110; length < 140; length += 1) {
      const properties = { contentType: 'x'.repeat(length) }
      expectSame(publishOf({ properties }), 5)
      expectSame(publishOf({ properties, alias: { alias: 3, isNew: true } }), 5)
    }
  })

  it('and empty User Properties are left out, although mqtt-packet writes no packet at all', () => {
    const properties = { userProperties: {} }
    expect(written(publishOf({ properties }), 5)).toEqual(written(publishOf(), 5))
  })

  it('and none are written on MQTT 3.1.1', () => {
    expectSame(publishOf({ properties: { contentType: 'text/plain' } }), 4)
  })

  it.each<[string, object]>([
    ['a list of values of one name', { userProperties: { a: ['b', 'c'] } }],
    ['a number as text', { contentType: 7 }],
    ['text as Correlation Data', { correlationData: 'text' }],
    ['a fraction of a second', { messageExpiryInterval: 1.5 }],
    ['more seconds than fit', { messageExpiryInterval: 0x1_0000_0000 }],
    ['a negative number of seconds', { messageExpiryInterval: -1 }],
    ['a Topic Alias', { topicAlias: 1 }],
    ['an unknown name', { unknown: 'x' }],
    ['no value', { contentType: undefined }],
    ['text instead of User Properties', { userProperties: 'text' }],
    ['a User Property that is not text', { userProperties: { a: 1 } }],
    ['a field that is too long', { responseTopic: 'x'.repeat(65_536) }],
  ])('unless they have %s, which the encoder of all other packets handles', (_what, properties) => {
    expect(propertiesLength(properties)).toBeUndefined()
  })
})

describe('a Topic Alias', () => {
  it.each([1, 255, 256, 65_535])('%i is sent with the topic when it is new', alias => {
    for (const topic of ['a/b', '温度/湿度', 'x'.repeat(65_535)]) {
      for (const qos of [0, 1, 2] as const)
        expectSame(publishOf({ topic, qos, alias: { alias, isNew: true } }), 5)
    }
  })

  it.each([1, 255, 256, 65_535])('%i replaces the topic when it is known', alias => {
    const known = { alias, isNew: false }
    for (const qos of [0, 1, 2] as const) {
      expectSame(publishOf({ qos, alias: known }), 5)
      expectSame(publishOf({ qos, topic: '温度'.repeat(10_000), alias: known, retain: true }), 5)
    }
  })

  it('saves the bytes of the topic, except the three bytes of the property', () => {
    const topic = 'site/4/machine/17/temperature'
    const full = written(publishOf({ topic }), 5).length
    expect(written(publishOf({ topic, alias: { alias: 1, isNew: true } }), 5)).toHaveLength(full + 3)
    expect(written(publishOf({ topic, alias: { alias: 1, isNew: false } }), 5)).toHaveLength(
      full + 3 - topic.length,
    )
  })
})

describe('a packet that is too long for MQTT', () => {
  it('is not written', () => {
    const batch = new WriteBatch()
    const payload = { length: MAX_REMAINING_LENGTH } as Buffer
    expect(batch.publish(publishOf({ payload }), undefined, undefined, true)).toBeUndefined()
    expect(batch.bytes).toBe(0)
    expect(MAX_REMAINING_LENGTH).toBe(128 ** 4 - 1)
  })
})
