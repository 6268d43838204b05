import { isUtf8 } from 'node:buffer'
import { describeCause, MqttError } from '../core/errors.js'

/**
 * Turns a value into the bytes of an Application Message and back. `encode` and `decode` may throw; what they
 * throw becomes the cause of a `PAYLOAD_NOT_ENCODABLE` or `PAYLOAD_NOT_DECODABLE` error.
 */
export interface Codec<T = unknown> {
  /** Content Type of the message (MQTT 5, 3.3.2.3.9). Sent on MQTT 5 only. */
  readonly contentType?: string
  encode(value: T): Buffer
  /** @param contentType of the message (MQTT 5, 3.3.2.3.9), where it has one */
  decode(payload: Buffer, contentType?: string): T
}

/**
 * JSON and nothing else: what `JSON.parse` refuses is a failure of that message. A payload of no bytes, which also
 * clears a retained message, is `undefined`; `undefined` is sent as `null`.
 */
export const jsonCodec: Codec = {
  contentType: 'application/json',
  encode: value => Buffer.from(JSON.stringify(value === undefined ? null : value)),
  decode: payload => (payload.length === 0 ? undefined : JSON.parse(utf8(payload))),
}

/** UTF-8 text (MQTT 5, 1.5.4). Refuses bytes that are not UTF-8, and text that UTF-8 cannot encode. */
export const textCodec: Codec<string> = {
  contentType: 'text/plain; charset=utf-8',
  encode: value => {
    if (typeof value !== 'string') throw new TypeError(`the text codec takes a string, not ${typeof value}`)
    if (!value.isWellFormed()) throw new TypeError('the text holds half of a surrogate pair')
    return Buffer.from(value)
  },
  decode: utf8,
}

function utf8(payload: Buffer): string {
  if (!isUtf8(payload)) throw new TypeError('the bytes are not UTF-8')
  return payload.toString('utf8')
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

/**
 * Decodes by the Content Type of each message: JSON (also `…+json`), text, and anything else as bytes; as JSON where
 * the message has none, as on MQTT 3.1.1. Encodes as JSON.
 */
export const contentTypeCodec: Codec = {
  contentType: 'application/json',
  encode: value => jsonCodec.encode(value),
  decode: (payload, contentType) => codecFor(contentType).decode(payload),
}

function codecFor(contentType = 'application/json'): Codec {
  const [type = ''] = contentType.toLowerCase().split(';')
  if (/^application\/(.*\+)?json$/.test(type.trim())) return jsonCodec
  return type.trim().startsWith('text/') ? textCodec : bytesCodec
}

const CODECS = {
  json: jsonCodec,
  text: textCodec,
  bytes: bytesCodec,
  'content-type': contentTypeCodec,
} as const satisfies Record<CodecName, unknown>

/** Names of the codecs of this package. */
export type CodecName = 'json' | 'text' | 'bytes' | 'content-type'

/** A codec of this package by name, or an own one. */
export type CodecOption = CodecName | Codec

/** @throws MqttError `INVALID_OPTION` for a name that is none of a codec */
export function resolveCodec(option: CodecOption): Codec {
  if (typeof option !== 'string') return option
  if (Object.hasOwn(CODECS, option)) return CODECS[option]
  throw new MqttError(
    'INVALID_OPTION',
    `there is no codec "${option}"; allowed are "json", "text", "bytes" and "content-type"`,
  )
}

/** Bytes go as they are with every codec; anything else through the codec. */
export function encodePayload(codec: Codec, topic: string, value: unknown): Buffer {
  if (Buffer.isBuffer(value)) return value
  if (value instanceof Uint8Array) return Buffer.from(value.buffer, value.byteOffset, value.byteLength)
  try {
    const bytes: unknown = codec.encode(value)
    if (Buffer.isBuffer(bytes)) return bytes
    throw new TypeError('the codec gave no Buffer')
  } catch (cause) {
    throw new MqttError(
      'PAYLOAD_NOT_ENCODABLE',
      `the payload for "${topic}" could not be encoded: ${describeCause(cause)}`,
      { cause },
    )
  }
}

export function decodePayload(codec: Codec, topic: string, payload: Buffer, contentType?: string): unknown {
  try {
    return codec.decode(payload, contentType)
  } catch (cause) {
    // The message of the cause may quote the payload, which belongs into no log.
    const kind = cause instanceof Error ? cause.name : 'error'
    throw new MqttError(
      'PAYLOAD_NOT_DECODABLE',
      `the payload on "${topic}" could not be decoded (${payload.length} bytes: ${kind})`,
      { cause },
    )
  }
}
