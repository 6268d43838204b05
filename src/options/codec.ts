import { isUtf8 } from 'node:buffer'
import { describeCause, MqttError } from '../core/errors.js'

/**
 * Encodes values as payloads and decodes payloads. `encode` and `decode` may throw: the thrown error becomes the cause of
 * a `PAYLOAD_NOT_ENCODABLE` or `PAYLOAD_NOT_DECODABLE` error.
 */
export interface Codec<T = unknown> {
  /** Content Type of encoded messages (MQTT 5, 3.3.2.3.9). Sent on MQTT 5 only. */
  readonly contentType?: string
  encode(value: T): Buffer
  /** @param contentType Content Type of the message (MQTT 5, 3.3.2.3.9), if it has one */
  decode(payload: Buffer, contentType?: string): T
}

/**
 * JSON. A payload that is not valid JSON fails its message. An empty payload, which also clears a retained message, is
 * decoded as `undefined`. `undefined` is encoded as `null`.
 */
export const jsonCodec: Codec = {
  contentType: 'application/json',
  encode: value => Buffer.from(JSON.stringify(value === undefined ? null : value)),
  decode: payload => {
    if (payload.length === 0) return undefined
    if (!isUtf8(payload)) throw notUtf8()
    return JSON.parse(payload.toString())
  },
}

/** UTF-8 strings. Rejects bytes that are not UTF-8, and strings that UTF-8 cannot encode (MQTT 5, 1.5.4). */
export const textCodec: Codec<string> = {
  contentType: 'text/plain; charset=utf-8',
  encode: value => {
    if (typeof value !== 'string')
      throw new TypeError(`the text codec expects a string, but the value is of type ${typeof value}`)
    if (!value.isWellFormed())
      throw new TypeError('the string contains an unpaired surrogate, which UTF-8 cannot encode')
    return Buffer.from(value)
  },
  decode: payload => {
    if (!isUtf8(payload)) throw notUtf8()
    return payload.toString()
  },
}

function notUtf8(): TypeError {
  return new TypeError('the payload is not valid UTF-8')
}

/** Bytes, unchanged. */
export const bytesCodec: Codec<Uint8Array> = {
  contentType: 'application/octet-stream',
  encode: value => {
    if (!(value instanceof Uint8Array))
      throw new TypeError(
        `the bytes codec expects a Buffer or Uint8Array, but the value is of type ${typeof value}`,
      )
    return Buffer.isBuffer(value) ? value : Buffer.from(value)
  },
  decode: payload => payload,
}

/**
 * Decodes by the Content Type of each message: JSON (including `…+json`), text, or bytes for any other type. A message
 * without a Content Type, as on MQTT 3.1.1, is decoded as JSON. Encodes JSON.
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

/** Names of the built-in codecs. */
export type CodecName = 'json' | 'text' | 'bytes' | 'content-type'

/** The name of a built-in codec, or your own codec. */
export type CodecOption = CodecName | Codec

/** @throws MqttError `INVALID_OPTION` for an unknown name */
export function resolveCodec(option: CodecOption): Codec {
  if (typeof option !== 'string') return option
  if (Object.hasOwn(CODECS, option)) return CODECS[option]
  throw new MqttError(
    'INVALID_OPTION',
    `unknown codec "${option}"; use "json", "text", "bytes", "content-type" or your own codec`,
  )
}

interface EncodedMessage {
  readonly topic: string
  readonly payload: Buffer | string
  readonly properties?: { readonly contentType?: string | undefined } | undefined
}

/** Encodes a value. Bytes are sent unchanged with every codec. @throws MqttError `PAYLOAD_NOT_ENCODABLE` */
export function encodePayload(codec: Codec, topic: string, value: unknown): Buffer {
  if (Buffer.isBuffer(value)) return value
  if (value instanceof Uint8Array) return Buffer.from(value.buffer, value.byteOffset, value.byteLength)
  try {
    const bytes: unknown = codec.encode(value)
    if (Buffer.isBuffer(bytes)) return bytes
    throw new TypeError('encode() of the codec did not return a Buffer')
  } catch (cause) {
    throw new MqttError(
      'PAYLOAD_NOT_ENCODABLE',
      `the payload for "${topic}" could not be encoded: ${describeCause(cause)}`,
      { cause },
    )
  }
}

/** Decodes the payload of a message. @throws MqttError `PAYLOAD_NOT_DECODABLE` */
export function decodePacket(codec: Codec, { topic, payload, properties }: EncodedMessage): unknown {
  try {
    const bytes = Buffer.isBuffer(payload) ? payload : Buffer.from(payload)
    return codec.decode(bytes, properties?.contentType)
  } catch (cause) {
    // The message of the cause may quote the payload, which must not appear in a log.
    const kind = cause instanceof Error ? cause.name : 'error'
    throw new MqttError(
      'PAYLOAD_NOT_DECODABLE',
      `the payload on "${topic}" could not be decoded (${Buffer.byteLength(payload)} bytes: ${kind})`,
      { cause },
    )
  }
}
