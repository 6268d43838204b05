import { describe, expect, it } from 'vitest'
import { contentTypeCodec, decodePacket, resolveCodec } from '../../../src/options/codec.js'
import { errorOf } from '../errors-of.js'

const FIVE = Buffer.from('5')

describe('the content-type codec', () => {
  it('has a name', () => {
    expect(resolveCodec('content-type')).toBe(contentTypeCodec)
  })

  it.each([
    undefined,
    'application/json',
    'APPLICATION/JSON',
    'application/json; charset=utf-8',
    ' application/json ',
    'application/vnd.api+json',
    'application/cloudevents+json;v=1',
  ])('decodes %j as JSON', contentType => {
    expect(contentTypeCodec.decode(FIVE, contentType)).toBe(5)
  })

  it.each(['text/plain', 'text/plain; charset=utf-8', 'Text/CSV', 'text/json'])(
    'decodes %j as text',
    contentType => {
      expect(contentTypeCodec.decode(FIVE, contentType)).toBe('5')
    },
  )

  it.each([
    '',
    'application/octet-stream',
    'application/jsonx',
    'application/x-json',
    'image/svg+xml',
    'x-application/json',
    ';application/json',
  ])('leaves %j as bytes', contentType => {
    expect(contentTypeCodec.decode(FIVE, contentType)).toBe(FIVE)
  })

  it('refuses a payload that does not match its Content Type, with an error without the content', () => {
    const error = errorOf(() =>
      decodePacket(contentTypeCodec, {
        topic: 'a',
        payload: Buffer.from([0xff]),
        properties: { contentType: 'text/plain' },
      }),
    )
    expect(error.message).toBe('the payload on "a" could not be decoded (1 byte: TypeError)')
    expect(() => contentTypeCodec.decode(Buffer.from('{'), undefined)).toThrow(SyntaxError)
  })

  it('encodes as JSON, with the Content Type', () => {
    expect(contentTypeCodec.encode({ a: 1 }).toString()).toBe('{"a":1}')
    expect(contentTypeCodec.contentType).toBe('application/json')
  })
})
