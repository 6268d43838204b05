import {
  bytesCodec,
  type Codec,
  contentTypeCodec,
  decodePayload,
  jsonCodec,
  textCodec,
} from '../../options/codec.js'

const OPENING = '{'.charCodeAt(0)
const KEYS = ['"pattern"', '"data"', '"id"']

/** The envelope is JSON, whatever the codec of the handler is. @returns undefined for a payload that cannot be one */
export function parseEnvelope(payload: Buffer): unknown {
  if (payload[0] !== OPENING || !KEYS.every(key => payload.includes(key))) return undefined
  try {
    return jsonCodec.decode(payload)
  } catch {
    return undefined
  }
}

/**
 * The data of an envelope as the codec of the handler gives it: text is a string; bytes are base64 or the JSON of a
 * Buffer; a codec of the application decodes these bytes, or the JSON text of anything else.
 * @throws MqttError `PAYLOAD_NOT_DECODABLE`
 */
export function decodeEnvelopeData(codec: Codec, topic: string, data: unknown): unknown {
  if (codec === jsonCodec || codec === contentTypeCodec) return data
  const bytes = bytesOfJson(data)
  if (codec === textCodec || codec === bytesCodec) {
    const raw = typeof data !== 'string' ? bytes : codec === textCodec ? Buffer.from(data) : fromBase64(data)
    return decodePayload(raw === undefined ? REFUSING : codec, topic, raw ?? Buffer.alloc(0))
  }
  return decodePayload(codec, topic, bytes ?? jsonCodec.encode(data))
}

const REFUSING: Codec = {
  encode: () => Buffer.alloc(0),
  decode: () => {
    throw new TypeError('the data of the envelope does not fit the codec')
  },
}

/** `{ type: 'Buffer', data: [...] }`, as JSON has a Buffer. */
function bytesOfJson(data: unknown): Buffer | undefined {
  if (typeof data !== 'object' || data === null || !('type' in data) || data.type !== 'Buffer')
    return undefined
  if (!('data' in data) || !Array.isArray(data.data)) return undefined
  const bytes: unknown[] = data.data
  return bytes.every(isByte) ? Buffer.from(bytes) : undefined
}

function isByte(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= 255
}

function fromBase64(text: string): Buffer | undefined {
  return /^[A-Za-z0-9+/]*={0,2}$/.test(text) && text.length % 4 === 0
    ? Buffer.from(text, 'base64')
    : undefined
}
