import { describe, expect, it } from 'vitest'
import { decodeEnvelopeData, readEnvelope } from '../../../../src/client/requests/nest-envelope.js'
import { unwrapEvent } from '../../../../src/core/requests/request-rules.js'
import { bytesCodec, type Codec, jsonCodec, textCodec } from '../../../../src/options/codec.js'
import { message } from '../../../support/session-on-peer.js'

const upper: Codec = { encode: () => Buffer.alloc(0), decode: payload => payload.toString().toUpperCase() }

describe('the data of an envelope', () => {
  it.each([
    ['JSON as it is', jsonCodec, { a: 1 }, { a: 1 }],
    ['a string as text', textCodec, 'on', 'on'],
    ['the JSON of a Buffer as text', textCodec, { type: 'Buffer', data: [111, 110] }, 'on'],
    ['base64 as bytes', bytesCodec, 'AQI=', Buffer.from([1, 2])],
    ['the JSON of a Buffer as bytes', bytesCodec, { type: 'Buffer', data: [1, 2] }, Buffer.from([1, 2])],
    ['JSON text for a codec of the application', upper, { a: 1 }, '{"A":1}'],
    ['bytes for a codec of the application', upper, { type: 'Buffer', data: [97] }, 'A'],
  ])('is %s', (_what, codec: Codec, data, expected) => {
    expect(decodeEnvelopeData(codec, 'a', data)).toEqual(expected)
  })

  it.each([
    [textCodec, 7],
    [textCodec, { a: 1 }],
    [bytesCodec, 'no base64'],
    [bytesCodec, { type: 'Buffer', data: [256] }],
    [bytesCodec, [1, 2]],
  ])('that does not fit the codec is a failure', (codec: Codec, data) => {
    expect(() => decodeEnvelopeData(codec, 'a', data)).toThrow('could not be decoded')
  })
})

it('a payload that is not an envelope is decoded by the codec of the handler', () => {
  for (const payload of ['', '[]', 'text', '{"a":1}', '{"pattern":1,"data":2,"id":'])
    expect(readEnvelope(textCodec, message('a', { payload }))).toEqual({ data: payload, target: undefined })
})

it('the keys of an array are not listed', () => {
  const listed = new Proxy([1], {
    ownKeys: () => {
      throw new Error('listed')
    },
  })
  expect(unwrapEvent('a', listed, () => undefined)).toEqual({ data: listed })
})
