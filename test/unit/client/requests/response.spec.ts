import { describe, expect, it } from 'vitest'
import { readResponse } from '../../../../src/client/requests/request-messages.js'
import { jsonCodec, textCodec } from '../../../../src/options/codec.js'
import { message } from '../../../support/session-on-peer.js'

const packet = (payload: string, status?: string | string[]) =>
  message('responses', {
    payload: Buffer.from(payload),
    ...(status === undefined ? {} : { properties: { userProperties: { status } } }),
  })

describe('a message on the response topic', () => {
  it.each([
    ['1', undefined, { kind: 'value', value: 1, isOnly: true }],
    ['', undefined, { kind: 'value', value: undefined, isOnly: true }],
    ['1', 'next', { kind: 'value', value: 1, isOnly: false }],
    ['1', 'of another kind', { kind: 'value', value: 1, isOnly: true }],
    ['not JSON', 'end', { kind: 'end', sent: Number.NaN }],
    ['not JSON', 'cancel', { kind: 'cancel' }],
  ])('%j with the status %j', (payload, status, response) => {
    expect(readResponse(packet(payload, status), jsonCodec)).toEqual(response)
  })

  it.each([
    ['"in words"', 'in words', 'in words'],
    ['{"message":"too warm","code":7}', 'too warm', { message: 'too warm', code: 7 }],
    ['{"message":7}', '7', { message: 7 }],
    ['[1]', 'the responder failed', [1]],
    ['', 'the responder failed', undefined],
  ])('the error %s', (payload, text, whole) => {
    const response = readResponse(packet(payload, 'error'), jsonCodec)
    expect(response).toMatchObject({ kind: 'error', error: { code: 'REQUEST_FAILED', message: text } })
    expect(response.kind === 'error' && response.error.response).toEqual(whole)
  })

  it.each([undefined, 'next', 'error'])('a payload that cannot be decoded, with the status %j', status => {
    expect(readResponse(packet('{', status), jsonCodec)).toMatchObject({
      kind: 'error',
      error: { code: 'PAYLOAD_NOT_DECODABLE' },
    })
  })

  it('is decoded by the codec of the request', () => {
    expect(readResponse(packet('{'), textCodec)).toEqual({ kind: 'value', value: '{', isOnly: true })
  })
})
