import { beforeEach, describe, expect, it } from 'vitest'
import type { PublishPacket } from '../../../../src/client/connection/link.js'
import { Redeliveries } from '../../../../src/client/inbound/redeliveries.js'
import { deliveryTo, namedHandler } from '../../../support/handler-runs.js'
import { message } from '../../../support/session-on-peer.js'

const again = (fields: Partial<PublishPacket> = {}) =>
  message('a', { qos: 1, messageId: 7, dup: true, payload: 'one', ...fields })

describe('Redeliveries', () => {
  let redeliveries = new Redeliveries()
  const delivery = deliveryTo([namedHandler('one')], 'a', { qos: 1, messageId: 7, payload: 'one' })

  beforeEach(() => {
    redeliveries = new Redeliveries()
    redeliveries.expect(7, delivery)
  })

  it('know the message by its Packet Identifier, DUP, topic and payload, once', () => {
    expect(redeliveries.claim(again())).toBe(delivery)
    expect(redeliveries.claim(again())).toBeUndefined()
  })

  it('know a payload by its bytes', () => {
    expect(redeliveries.claim(again({ payload: Buffer.from('one') }))).toBe(delivery)
  })

  it.each([
    ['without DUP', { dup: false }],
    ['with another payload', { payload: 'two' }],
    ['of another topic', { topic: 'b' }],
  ])('do not know a message %s, nor the first one after it', (_how, fields) => {
    expect(redeliveries.claim(again(fields))).toBeUndefined()
    expect(redeliveries.claim(again())).toBeUndefined()
  })

  it('are not disturbed by other Packet Identifiers, and by none', () => {
    const { messageId: _none, ...withoutIdentifier } = again()
    expect(redeliveries.claim(again({ messageId: 8 }))).toBeUndefined()
    expect(redeliveries.claim(withoutIdentifier)).toBeUndefined()
    expect(redeliveries.claim(again())).toBe(delivery)
  })

  it('do not know a message that was given back: it is to be handled again', () => {
    const left = deliveryTo([namedHandler('one')], 'a', { qos: 1, messageId: 7, payload: 'one' })
    left.end('givenBack')
    redeliveries.expect(7, left)
    expect(redeliveries.claim(again())).toBeUndefined()
  })

  it('forget everything with the session', () => {
    redeliveries.clear()
    expect(redeliveries.claim(again())).toBeUndefined()
  })
})
