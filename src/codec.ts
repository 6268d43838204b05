import { MqttError } from './errors.js'

/**
 * Turns a value into the bytes of an Application Message and back. `encode` and `decode` may throw; what they
 * throw becomes the cause of a `PAYLOAD_NOT_ENCODABLE` or `PAYLOAD_NOT_DECODABLE` error.
 */
export interface Codec<T = unknown> {
  /** Content Type of the message (MQTT 5, 3.3.2.3.9). Sent on MQTT 5 only. */
  readonly contentType?: string
  encode(value: T): Buffer
  decode(payload: Buffer): T
}

/** JSON and nothing else: what `JSON.parse` refuses is a failure of that message. `undefined` is sent as `null`. */
export const jsonCodec: Codec = {
  contentType: 'application/json',
  encode: value => Buffer.from(JSON.stringify(value === undefined ? null : value)),
  decode: payload => JSON.parse(payload.toString('utf8')),
}

/** UTF-8 text. Decoding refuses bytes that are not UTF-8. */
export const textCodec: Codec<string> = {
  contentType: 'text/plain; charset=utf-8',
  encode: value => {
    if (typeof value !== 'string') throw new TypeError(`the text codec takes a string, not ${typeof value}`)
    return Buffer.from(value)
  },
  decode: payload => new TextDecoder('utf-8', { fatal: true }).decode(payload),
}

/** The bytes as they are. */
export const bytesCodec: Codec<Uint8Array> = {
  contentType: 'application/octet-stream',
  encode: value => {
    if (!(value instanceof Uint8Array))
      throw new TypeError(`the bytes codec takes a Buffer, not ${typeof value}`)
    return Buffer.isBuffer(value) ? value : Buffer.from(value)
  },
  decode: payload => payload,
}

const CODECS = { json: jsonCodec, text: textCodec, bytes: bytesCodec } as const

export type CodecName = keyof typeof CODECS

/** A codec of this package by name, or an own one. */
export type CodecOption = CodecName | Codec

export function resolveCodec(option: CodecOption): Codec {
  return typeof option === 'string' ? CODECS[option] : option
}

/** Buffers go as they are with every codec; anything else through the codec. */
export function encodePayload(codec: Codec, topic: string, value: unknown): Buffer {
  if (Buffer.isBuffer(value)) return value
  try {
    return codec.encode(value)
  } catch (cause) {
    throw new MqttError('PAYLOAD_NOT_ENCODABLE', `the payload for "${topic}" could not be encoded`, { cause })
  }
}

export function decodePayload(codec: Codec, topic: string, payload: Buffer): unknown {
  try {
    return codec.decode(payload)
  } catch (cause) {
    throw new MqttError('PAYLOAD_NOT_DECODABLE', `the payload on "${topic}" could not be decoded`, { cause })
  }
}
