import { expect, it } from 'vitest'
import { describeReasonCode } from '../../../../src/core/protocol/packets.js'

it.each([
  [0x87, '0x87 Not authorized'],
  [0x9c, '0x9C Use another server'],
  [0x19, '0x19 Re-authenticate'],
  [0xee, '0xEE Unknown Reason Code'],
  [0x0b, '0x0B Unknown Reason Code'],
])('the Reason Code %i is described by its number and its name in the specification: %s', (code, text) => {
  expect(describeReasonCode(code)).toBe(text)
})
