import { inspect } from 'node:util'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  bytesCodec,
  type Codec,
  decodePacket,
  encodePayload,
  jsonCodec,
  resolveCodec,
  textCodec,
} from '../../../src/options/codec.js'
import { errorOf } from '../errors-of.js'

const NOT_UTF8 = Buffer.from([0x61, 0xff, 0xfe])

describe('the json codec', () => {
  it.each([
    [{ rate: 5 }, '{"rate":5}'],
    [[1, 'a', null], '[1,"a",null]'],
    ['text', '"text"'],
    ['', '""'],
    [0, '0'],
    [-1.5, '-1.5'],
    [true, 'true'],
    [false, 'false'],
    [null, 'null'],
    [undefined, 'null'],
    ['é😀', '"é😀"'],
  ])('encodes %j as %s', (value, json) => {
    expect(jsonCodec.encode(value).toString()).toBe(json)
  })

  it.each([
    ['{"rate":5}', { rate: 5 }],
    [' [1] ', [1]],
    ['"text"', 'text'],
    ['"5"', '5'],
    ['5', 5],
    ['null', null],
    ['false', false],
  ])('decodes %s as %j', (json, value) => {
    expect(jsonCodec.decode(Buffer.from(json))).toEqual(value)
  })

  it.each([' ', 'text', '{', "{'a': 1}", '{"a": 1,}', 'undefined', 'NaN', '\uFEFF1', '1 2'])(
    'refuses %j',
    json => {
      expect(() => jsonCodec.decode(Buffer.from(json))).toThrow(SyntaxError)
    },
  )

  it('decodes an empty payload, which clears a retained message, as undefined', () => {
    expect(jsonCodec.decode(Buffer.alloc(0))).toBeUndefined()
  })

  it('refuses bytes that are not UTF-8 instead of replacing them', () => {
    expect(() => jsonCodec.decode(Buffer.from([0x22, 0xff, 0x22]))).toThrow(Error)
  })

  it('returns every JSON value unchanged', () => {
    fc.assert(
      fc.property(fc.jsonValue({ noUnicodeString: false }), value => {
        expect(jsonCodec.decode(jsonCodec.encode(value))).toEqual(JSON.parse(JSON.stringify(value)))
      }),
    )
  })

  it('does not change the prototype of the decoded value', () => {
    const decoded = jsonCodec.decode(Buffer.from('{"__proto__": {"admin": true}}'))
    expect(Object.getPrototypeOf(decoded)).toBe(Object.prototype)
  })

  it('states its Content Type', () => {
    expect(jsonCodec.contentType).toBe('application/json')
  })
})

describe('the text codec', () => {
  it.each(['', 'a', 'Kälte 温度 😀', '\u0000', 'a\uFEFFb'])('returns the text %j unchanged', text => {
    expect(textCodec.decode(textCodec.encode(text))).toBe(text)
  })

  it('keeps a byte order mark at the start, which is a character (MQTT 5, 1.5.4)', () => {
    expect(textCodec.decode(textCodec.encode('\uFEFFa'))).toBe('\uFEFFa')
  })

  it('returns every text unchanged', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), text => {
        expect(textCodec.decode(textCodec.encode(text))).toBe(text)
      }),
    )
  })

  it('encodes as UTF-8', () => {
    expect(textCodec.encode('é')).toEqual(Buffer.from([0xc3, 0xa9]))
  })

  it('refuses bytes that are not UTF-8', () => {
    expect(() => textCodec.decode(NOT_UTF8)).toThrow(TypeError)
  })

  it('refuses half of a surrogate pair, which UTF-8 cannot encode', () => {
    expect(() => textCodec.encode('a\ud800')).toThrow(TypeError)
  })

  it('refuses a value that is not a string', () => {
    const encode: (value: unknown) => unknown = value => Reflect.apply(textCodec.encode, textCodec, [value])
    expect(() => encode(5)).toThrow(
      new TypeError('the text codec expects a string, but the value is of type number'),
    )
    expect(() => encode(null)).toThrow(TypeError)
    expect(() => encode(undefined)).toThrow(TypeError)
  })

  it('states its Content Type', () => {
    expect(textCodec.contentType).toBe('text/plain; charset=utf-8')
  })
})

describe('the bytes codec', () => {
  it('passes a Buffer through without a copy', () => {
    expect(bytesCodec.encode(NOT_UTF8)).toBe(NOT_UTF8)
    expect(bytesCodec.decode(NOT_UTF8)).toBe(NOT_UTF8)
  })

  it('uses only the bytes of a view', () => {
    const view = new Uint8Array([1, 2, 3, 4]).subarray(1, 3)
    const encoded = bytesCodec.encode(view)
    expect(Buffer.isBuffer(encoded)).toBe(true)
    expect(encoded).toEqual(Buffer.from([2, 3]))
  })

  it('refuses a value that is not bytes', () => {
    const encode: (value: unknown) => unknown = value => Reflect.apply(bytesCodec.encode, bytesCodec, [value])
    expect(() => encode('a')).toThrow(
      new TypeError('the bytes codec expects a Buffer or Uint8Array, but the value is of type string'),
    )
    expect(() => encode([1, 2])).toThrow(TypeError)
    expect(() => encode(new Uint16Array(1))).toThrow(TypeError)
  })

  it('states its Content Type', () => {
    expect(bytesCodec.contentType).toBe('application/octet-stream')
  })
})

describe('resolveCodec', () => {
  it.each([
    ['json', jsonCodec],
    ['text', textCodec],
    ['bytes', bytesCodec],
  ] as const)('finds the codec %j by its name', (name, codec) => {
    expect(resolveCodec(name)).toBe(codec)
  })

  it('returns a custom codec unchanged', () => {
    const own: Codec = { encode: () => Buffer.alloc(0), decode: () => 0 }
    expect(resolveCodec(own)).toBe(own)
  })

  it.each(['xml', 'toString', ''])('refuses the unknown name %j, which a publish may pass', name => {
    expect(errorOf(() => Reflect.apply(resolveCodec, undefined, [name])).code).toBe('INVALID_OPTION')
  })
})

describe('encodePayload', () => {
  it.each([
    ['json', jsonCodec],
    ['text', textCodec],
    ['bytes', bytesCodec],
  ])('sends a Buffer unchanged with the codec %j', (_name, codec) => {
    expect(encodePayload(codec, 'a', NOT_UTF8)).toBe(NOT_UTF8)
  })

  it('encodes everything else with the codec', () => {
    expect(encodePayload(jsonCodec, 'a', 'x').toString()).toBe('"x"')
    expect(encodePayload(textCodec, 'a', 'x').toString()).toBe('x')
  })

  it.each([
    ['a function', () => 0],
    ['a symbol', Symbol('s')],
    ['a bigint', 1n],
    [
      'a toJSON that throws',
      {
        toJSON() {
          throw new RangeError('no')
        },
      },
    ],
  ])('refuses %s in JSON, with the topic and the cause', (_what, value) => {
    const error = errorOf(() => encodePayload(jsonCodec, 'a/b', value))
    expect(error.code).toBe('PAYLOAD_NOT_ENCODABLE')
    expect(error.message).toMatch(/^the payload for "a\/b" could not be encoded: ./)
    expect(error.cause).toBeInstanceOf(Error)
  })

  it('keeps any value that a custom codec throws as the cause', () => {
    const own: Codec = {
      encode: () => {
        throw 'no error object'
      },
      decode: () => 0,
    }
    expect(errorOf(() => encodePayload(own, 'a', {})).cause).toBe('no error object')
  })
})

describe('a received payload', () => {
  it('is decoded by the codec', () => {
    expect(decodePacket(jsonCodec, { topic: 'a', payload: Buffer.from('{"a":1}') })).toEqual({ a: 1 })
  })

  it('that the codec refuses fails with the topic and the cause', () => {
    const error = errorOf(() => decodePacket(jsonCodec, { topic: 'a/b', payload: Buffer.from('{') }))
    expect(error.code).toBe('PAYLOAD_NOT_DECODABLE')
    expect(error.message).toMatch(/^the payload on "a\/b" could not be decoded \(1 byte: SyntaxError\)$/)
    expect(error.cause).toBeInstanceOf(SyntaxError)
  })

  it('is not kept in memory by the error of JSON, which the message keeps while it waits', () => {
    setFlagsFromString('--expose-gc')
    const collect: () => void = runInNewContext('gc')
    const payload = Buffer.alloc(1_000_000, 'x')
    const heldBytes = (): number => {
      collect()
      return process.memoryUsage().heapUsed
    }
    const before = heldBytes()
    const errors = Array.from({ length: 50 }, () =>
      errorOf(() => decodePacket(jsonCodec, { topic: 'a', payload })),
    )
    expect(heldBytes() - before).toBeLessThan(10_000_000)
    expect(errors[49]?.cause).toBeInstanceOf(SyntaxError)
  })

  it('does not appear in the error message, because it may be private', () => {
    const error = errorOf(() => decodePacket(jsonCodec, { topic: 'a', payload: Buffer.from('hunter2') }))
    expect(error.message).not.toContain('hunter2')
    expect(error.cause).toMatchObject({ message: expect.stringContaining('hunter2') })
    const options = { depth: Number.POSITIVE_INFINITY, showHidden: true }
    expect(inspect(error, options)).not.toContain('hunter2')
    expect(inspect(new Error('the handler failed', { cause: error }), options)).not.toContain('hunter2')
    expect(inspect(error)).toContain('[cause]: SyntaxError')
  })
})
