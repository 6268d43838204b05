import fc from 'fast-check'
import mqttPacket, { type IPublishPacket, type Packet } from 'mqtt-packet'
import { describe, expect, it } from 'vitest'
import { decodePacket, packetSizeAt } from '../../../../src/core/protocol/packet-decoder.js'

/** The same bytes, as the parser of `mqtt` reads them; undefined where it reports an error. */
function parsed(bytes: Buffer, protocolVersion: 4 | 5): Packet | undefined {
  const packets: Packet[] = []
  const parser = mqttPacket.parser({ protocolVersion })
  let isWrong = false
  parser.on('packet', packet => packets.push(packet))
  parser.on('error', () => {
    isWrong = true
  })
  try {
    parser.parse(bytes)
  } catch {
    return undefined
  }
  return isWrong ? undefined : packets[0]
}

const decoded = (bytes: Buffer, protocolVersion: 4 | 5) =>
  decodePacket(bytes, 0, bytes.length, protocolVersion)

/** The fields that a packet has in MQTT; the parser adds fields that are always null. */
function fieldsOf(packet: Packet | ReturnType<typeof decodePacket>): Record<string, unknown> {
  const {
    cmd,
    messageId,
    reasonCode,
    properties,
    topic,
    payload,
    qos,
    dup,
    retain,
    length,
  }: Record<string, unknown> = {
    ...packet,
  }
  if (cmd === 'puback') return { cmd, messageId, reasonCode }
  return { cmd, messageId, properties, topic, payload, qos, dup, retain, length }
}

/** Without the characters that leave a packet to the parser of mqtt. */
const text = fc
  .string({ unit: 'grapheme', maxLength: 20 })
  .filter(value => !value.includes('\ufffd') && !value.includes('\0'))
const topic = fc.stringMatching(/^[ -~]{1,40}$/).filter(value => !value.includes('+') && !value.includes('#'))
const properties = fc.record(
  {
    payloadFormatIndicator: fc.boolean(),
    messageExpiryInterval: fc.integer({ min: 0, max: 0xffffffff }),
    contentType: text,
    responseTopic: text,
    correlationData: fc.uint8Array({ maxLength: 20 }).map(bytes => Buffer.from(bytes)),
    userProperties: fc.dictionary(
      text.filter(value => value !== ''),
      text.filter(value => value !== ''),
      { minKeys: 1, maxKeys: 3, noNullPrototype: false },
    ),
    subscriptionIdentifier: fc.integer({ min: 1, max: 268_435_455 }),
  },
  { requiredKeys: [] },
)
const publish = fc.record({
  cmd: fc.constant<'publish'>('publish'),
  topic,
  payload: fc.uint8Array({ maxLength: 300 }).map(bytes => Buffer.from(bytes)),
  qos: fc.constantFrom<0 | 1>(0, 1),
  retain: fc.boolean(),
  dup: fc.constant(false),
  messageId: fc.integer({ min: 1, max: 65_535 }),
  properties,
})
const version = fc.constantFrom<4 | 5>(4, 5)

describe('decoding of the most frequent packets', () => {
  it('returns the same as the parser of mqtt for every PUBLISH at QoS 0 and 1', () => {
    let decodedCount = 0
    fc.assert(
      fc.property(publish, version, ({ messageId, properties: given, ...rest }, protocolVersion) => {
        const packet: IPublishPacket = {
          ...rest,
          ...(rest.qos === 0 ? {} : { messageId }),
          ...(protocolVersion === 5 ? { properties: given } : {}),
        }
        const bytes = mqttPacket.generate(packet, { protocolVersion })
        const own = decoded(bytes, protocolVersion)
        if (own !== undefined) decodedCount += 1
        expect(fieldsOf(own)).toEqual(fieldsOf(parsed(bytes, protocolVersion)))
      }),
      { numRuns: 2_000 },
    )
    expect(decodedCount).toBe(2_000)
  })

  it('never decodes a packet that the parser of mqtt refuses or decodes differently', () => {
    const valid = Buffer.concat([
      mqttPacket.generate(
        {
          cmd: 'publish',
          topic: 'a/b',
          payload: 'x',
          qos: 1,
          dup: false,
          retain: false,
          messageId: 7,
          properties: { contentType: 't', userProperties: { a: 'b' }, subscriptionIdentifier: 3 },
        },
        { protocolVersion: 5 },
      ),
    ])
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(valid.length - 1), fc.nat(255)), { minLength: 1, maxLength: 3 }),
        version,
        (changes, protocolVersion) => {
          const bytes = Buffer.from(valid)
          for (const [at, byte] of changes) bytes[at] = byte
          if (packetSizeAt(bytes, 0) !== bytes.length) return
          const own = decoded(bytes, protocolVersion)
          if (own !== undefined) expect(fieldsOf(own)).toEqual(fieldsOf(parsed(bytes, protocolVersion)))
        },
      ),
      { numRuns: 20_000 },
    )
  })

  it.each([
    [4, Buffer.from([0x40, 2, 1, 2]), { cmd: 'puback', messageId: 258 }],
    [5, Buffer.from([0x40, 2, 0, 9]), { cmd: 'puback', messageId: 9, reasonCode: 0 }],
    [5, Buffer.from([0x40, 3, 0, 9, 0x10]), { cmd: 'puback', messageId: 9, reasonCode: 0x10 }],
  ] as const)('decodes a PUBACK of MQTT %i', (protocolVersion, bytes, packet) => {
    expect(decoded(bytes, protocolVersion)).toEqual(packet)
    expect(fieldsOf(parsed(bytes, protocolVersion))).toEqual(fieldsOf(decoded(bytes, protocolVersion)))
  })

  const publishWith = (change: Partial<IPublishPacket>) =>
    mqttPacket.generate(
      { cmd: 'publish', topic: 'a', payload: 'x', qos: 0, dup: false, retain: false, ...change },
      { protocolVersion: 5 },
    )
  it.each([
    ['a PUBACK without Packet Identifier', Buffer.from([0x40, 2, 0, 0])],
    ['a PUBACK with an unknown Reason Code', Buffer.from([0x40, 3, 0, 1, 0x55])],
    ['a PUBACK with properties', Buffer.from([0x40, 4, 0, 1, 0, 0])],
    ['a PUBACK with wrong flags', Buffer.from([0x42, 2, 0, 1])],
    ['PINGRESP', Buffer.from([0xd0, 0])],
    ['PUBREL', Buffer.from([0x62, 2, 0, 1])],
    ['a PUBLISH at QoS 2', publishWith({ qos: 2, messageId: 1 })],
    ['a PUBLISH at QoS 1 without Packet Identifier', Buffer.from([0x32, 6, 0, 1, 0x61, 0, 0, 0])],
    ['a PUBLISH with both bits of QoS', Buffer.from([0x36, 6, 0, 1, 0x61, 0, 1, 0])],
    ['a PUBLISH at QoS 0 with DUP', Buffer.from([0x38, 4, 0, 1, 0x61, 0])],
    ['a PUBLISH with an empty topic', Buffer.from([0x30, 3, 0, 0, 0])],
    ['a PUBLISH with a wildcard', Buffer.from([0x30, 4, 0, 1, 0x2b, 0])],
    ['a PUBLISH whose topic is longer than the packet', Buffer.from([0x30, 4, 0, 9, 0x61, 0])],
    ['a PUBLISH with a Topic Alias', publishWith({ properties: { topicAlias: 1 } })],
    ['a PUBLISH with U+FFFD in Content Type', publishWith({ properties: { contentType: 'a\ufffd' } })],
    ['a PUBLISH with U+0000 in Response Topic', publishWith({ properties: { responseTopic: 'a\0' } })],
    ['a PUBLISH with U+FFFD in a name', publishWith({ properties: { userProperties: { '\ufffd': 'a' } } })],
    ['a PUBLISH with U+FFFD in a value', publishWith({ properties: { userProperties: { a: '\ufffd' } } })],
    ['a PUBLISH with an unknown property', Buffer.from([0x30, 6, 0, 1, 0x61, 2, 0x7f, 0])],
    ['a PUBLISH with a property twice', Buffer.from([0x30, 8, 0, 1, 0x61, 4, 1, 1, 1, 1])],
  ])('leaves %s to the parser of mqtt', (_, bytes) => {
    expect(packetSizeAt(bytes, 0)).toBe(bytes.length)
    expect(decoded(bytes, 5)).toBeUndefined()
  })
})

describe('size of a packet', () => {
  it.each([0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455])(
    'reads a Remaining Length of %i',
    length => {
      const bytes = [0x30]
      let rest = length
      do {
        bytes.push((rest % 128) + (rest >= 128 ? 128 : 0))
        rest = Math.floor(rest / 128)
      } while (rest > 0)
      expect(packetSizeAt(Buffer.from(bytes), 0)).toBe(length + bytes.length)
      expect(packetSizeAt(Buffer.from(bytes.slice(0, -1)), 0)).toBe(0)
    },
  )

  it('is NaN if the length has more than four bytes', () => {
    expect(packetSizeAt(Buffer.from([0x30, 0xff, 0xff, 0xff, 0xff, 1]), 0)).toBeNaN()
  })
})
