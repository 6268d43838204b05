import { generate, type IPublishPacket } from 'mqtt-packet'
import { describe, expect, it } from 'vitest'
import { hasValidText, PublishTexts } from '../../../../src/core/protocol/packet-text.js'

const ALL_PROPERTIES = {
  payloadFormatIndicator: true,
  messageExpiryInterval: 0x80_ff_c3_28,
  contentType: 'text/plain',
  responseTopic: 'a/ü',
  correlationData: Buffer.from([0xff, 0x00]),
  topicAlias: 0xff80,
  subscriptionIdentifier: 0x0f_ff_ff,
  userProperties: { ключ: '\ufffd\ufeff', k: ['1', '温度'] },
}

function publish(version: 4 | 5, change: Partial<IPublishPacket> = {}): Buffer {
  const packet: IPublishPacket = {
    cmd: 'publish',
    topic: 'a/\ufffd',
    payload: Buffer.from([0xff, 0x00]),
    qos: 1,
    messageId: 0xff00,
    dup: false,
    retain: false,
    ...(version === 5 ? { properties: ALL_PROPERTIES } : {}),
  }
  return generate({ ...packet, ...change }, { protocolVersion: version })
}

const check = (bytes: Buffer, version: 4 | 5, size = bytes.length) => hasValidText(bytes, 0, size, version)

/** The bytes with an invalid one in place of the first byte of a text. */
function damaged(bytes: Buffer, text: string, byte: number): Buffer {
  const at = bytes.indexOf(Buffer.from(text))
  expect(at).toBeGreaterThan(0)
  const copy = Buffer.from(bytes)
  copy[at] = byte
  return copy
}

describe.each([4, 5] as const)('the texts of a PUBLISH of MQTT %i', version => {
  it.each([0, 1, 2] as const)('are valid at QoS %i, whatever the bytes between them are', qos => {
    expect(check(publish(version, { qos }), version)).toBe(true)
  })

  it('are valid in a long packet, and anywhere in the bytes of a read', () => {
    const bytes = publish(version, { payload: Buffer.alloc(20_000, 0xff) })
    const before = Buffer.from([0xd0, 0x00])
    expect(check(bytes, version)).toBe(true)
    expect(hasValidText(Buffer.concat([before, bytes]), 2, 2 + bytes.length, version)).toBe(true)
  })

  it('are invalid with a Topic Name that is not UTF-8', () => {
    expect(check(damaged(publish(version), 'a/', 0xff), version)).toBe(false)
  })

  it('are checked in pieces with the same result, and are complete before the payload', () => {
    const bytes = publish(version)
    const first = bytes.indexOf('a/')
    for (const at of [
      first,
      ...(version === 5 ? [bytes.indexOf('text/plain'), bytes.indexOf('温度')] : []),
    ]) {
      const bad = Buffer.from(bytes)
      bad[at] = 0xff
      for (let size = 1; size <= bytes.length; size += 1) {
        const [valid, invalid] = [new PublishTexts(version), new PublishTexts(version)]
        const results = { valid: true, invalid: true }
        for (let from = 0; from < bytes.length; from += size) {
          results.valid &&= valid.take(bytes.subarray(from, from + size))
          results.invalid &&= invalid.take(bad.subarray(from, from + size))
        }
        expect([size, results, valid.isComplete]).toEqual([size, { valid: true, invalid: false }, true])
      }
    }
  })

  it('are unknown until all of them have arrived', () => {
    const bytes = publish(version, { payload: Buffer.alloc(0) })
    const known = version === 4 ? bytes.length - 2 : bytes.length
    for (let length = 2; length < known; length += 1)
      expect([length, check(bytes.subarray(0, length), version, bytes.length)]).toEqual([length, undefined])
    expect(check(bytes.subarray(0, known), version, bytes.length)).toBe(true)
  })
})

describe('the properties of a PUBLISH of MQTT 5', () => {
  it.each(['text/plain', 'a/ü', 'ключ', '\ufffd\ufeff', 'k', '温度'])(
    'are invalid with a damaged %j',
    text => {
      const bytes = publish(5, { topic: 't' })
      for (const byte of [0xff, 0x00]) expect(check(damaged(bytes, text, byte), 5)).toBe(false)
    },
  )

  it('are no part of a packet of MQTT 3.1.1, whose payload may have any bytes', () => {
    expect(check(damaged(publish(5), 'text/plain', 0xff), 4)).toBe(true)
  })

  it.each([
    ['a field that is longer than the properties', '30080001610403ffff61'],
    ['a length of properties beyond the packet', '30040001617f'],
    ['a length of properties that does not end', '3008000161ffffffffff'],
  ])('are unknown with %s, which the parser of mqtt reports', (_what, hex) => {
    expect(check(Buffer.from(hex, 'hex'), 5)).toBeUndefined()
  })
})

it.each(['40020001', '9003000100', 'd000', '62020001'])(
  'the packet %s, which is no PUBLISH, is not checked',
  hex => {
    expect(check(Buffer.from(hex, 'hex'), 5)).toBe(true)
  },
)
