import { describe, expect, it } from 'vitest'
import type { PublishPacket } from '../../../../src/client/connection/link.js'
import { deadLetterMessage } from '../../../../src/client/inbound/dead-letters.js'
import { message } from '../../../support/session-on-peer.js'

const TIME = Date.UTC(2030, 0, 2, 12)
const letter = (fields: Partial<PublishPacket>, reason = 'broken') => ({
  topic: 'dead',
  packet: message('in/1', { qos: 1, messageId: 3, dup: true, ...fields }),
  pattern: 'in/+id',
  reason,
  attempts: 4,
})
const FACTS = {
  'dead-letter-topic': 'in/1',
  'dead-letter-pattern': 'in/+id',
  'dead-letter-reason': 'broken',
  'dead-letter-attempts': '4',
  'dead-letter-time': '2030-01-02T12:00:00.000Z',
}

describe('a dead letter of MQTT 5', () => {
  it('has the original payload, and the details as User Properties', () => {
    const payload = Buffer.from([0xff, 0x00])
    expect(deadLetterMessage(letter({ payload }), 5, TIME)).toEqual({
      topic: 'dead',
      qos: 1,
      retain: false,
      payload,
      properties: { userProperties: FACTS },
    })
  })

  it('shares the bytes of the payload with the message, so that it takes no further memory', () => {
    const payload = Buffer.alloc(100_000)
    expect(deadLetterMessage(letter({ payload }), 5, TIME).payload).toBe(payload)
  })

  it('accepts a string as the payload', () => {
    expect(deadLetterMessage(letter({ payload: 'é' }), 5, TIME).payload).toEqual(Buffer.from('é'))
  })

  it('keeps the properties of the message, except those of its connection and its expiry', () => {
    const properties = {
      payloadFormatIndicator: true,
      contentType: 'text/plain',
      topicAlias: 4,
      subscriptionIdentifier: [1, 2],
      messageExpiryInterval: 10,
      userProperties: { own: ['1', '2'], 'dead-letter-reason': 'forged' },
    }
    expect(deadLetterMessage(letter({ properties }), 5, TIME).properties).toEqual({
      payloadFormatIndicator: true,
      contentType: 'text/plain',
      userProperties: { own: ['1', '2'], ...FACTS },
    })
  })

  it('has a reason of at most 1,024 characters, without half of a surrogate pair', () => {
    const { properties } = deadLetterMessage(letter({}, `${'x'.repeat(1_023)}😀 and more`), 5, TIME)
    const reason = String(properties?.userProperties?.['dead-letter-reason'])
    expect(reason).toHaveLength(1_024)
    expect(reason.isWellFormed()).toBe(true)
  })
})

describe('a dead letter of MQTT 3.1.1', () => {
  it.each([
    [Buffer.from('"Kälte"'), 'utf8', '"Kälte"'],
    [Buffer.from([0xff, 0x00]), 'base64', '/wA='],
    [Buffer.alloc(0), 'utf8', ''],
  ])('has no properties, and everything in JSON: %j', (payload, encoding, text) => {
    const { payload: json, ...fields } = deadLetterMessage(letter({ payload, retain: true }), 4, TIME)
    expect(fields).toEqual({ topic: 'dead', qos: 1, retain: false })
    expect(JSON.parse(json.toString())).toEqual({
      topic: 'in/1',
      pattern: 'in/+id',
      reason: 'broken',
      attempts: 4,
      time: '2030-01-02T12:00:00.000Z',
      qos: 1,
      retain: true,
      encoding,
      payload: text,
    })
  })
})
