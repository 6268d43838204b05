import { isUtf8 } from 'node:buffer'
import { inspect } from 'node:util'
import {
  describeCause,
  isError,
  keyOf,
  LONGEST_ISSUE,
  MOST_ISSUES,
  MqttError,
  type PayloadIssue,
  readSafely,
  textOfIssue,
  withoutValue,
} from '../core/errors.js'
import { counted } from '../core/log-lines.js'

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
    try {
      return JSON.parse(payload.toString())
    } catch (error) {
      // The error of V8 refers to the whole text, which would stay in memory as long as the message waits for its dead letter.
      throw isError(error) ? new SyntaxError(error.message) : error
    }
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
    const kind = isError(cause) ? cause.name : 'error'
    throw new MqttError(
      'PAYLOAD_NOT_DECODABLE',
      `the payload on "${topic}" could not be decoded (${counted(Buffer.byteLength(payload), 'byte')}: ${kind})`,
      { cause },
    )
  }
}

/**
 * A schema of zod, valibot, arktype or another library that implements Standard Schema V1
 * (https://standardschema.dev). `In` is the type that it accepts, `Out` the type that it returns.
 */
export interface StandardSchema<In = unknown, Out = In> {
  readonly '~standard': {
    readonly version: 1
    readonly vendor: string
    readonly validate: (value: unknown) => SchemaResult<Out> | Promise<SchemaResult<Out>>
    readonly types?: { readonly input: In; readonly output: Out } | undefined
  }
}

/** The result of a {@link StandardSchema}: a value, or what is wrong with the input. */
export type SchemaResult<Out> =
  | { readonly value: Out; readonly issues?: undefined }
  | { readonly issues: readonly SchemaIssue[] }

/** One thing that is wrong with the input of a {@link StandardSchema}. */
export interface SchemaIssue {
  readonly message: string
  readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined
}

/** Text of the error for a value that is not a schema. */
export const SCHEMA_ALLOWED = 'a Standard Schema V1, such as one of zod, valibot or arktype'

/** Whether a value has the shape of Standard Schema V1. A schema of arktype is a function. */
export function isStandardSchema(value: unknown): boolean {
  if ((typeof value !== 'object' && typeof value !== 'function') || value === null) return false
  const standard: unknown = Reflect.get(value, '~standard')
  if (typeof standard !== 'object' || standard === null) return false
  return Reflect.get(standard, 'version') === 1 && typeof Reflect.get(standard, 'validate') === 'function'
}

/** How a payload is validated. */
export interface PayloadCheck {
  readonly schema: StandardSchema
  /** Whether the reasons contain the values that are not valid. */
  readonly showsValues: boolean
}

/**
 * Validates the payload of a message, or a response.
 * @returns the output of the schema, or a promise if the schema validates asynchronously
 * @throws MqttError `PAYLOAD_INVALID`
 */
export function validated(
  check: PayloadCheck,
  what: string,
  value: unknown,
  Failure: typeof MqttError = MqttError,
): unknown {
  const { schema } = check
  try {
    const result = schema['~standard'].validate(value)
    if (!('then' in result)) return outputOf(result, check, what, value, Failure)
    return Promise.resolve(result)
      .then(settled => outputOf(settled, check, what, value, Failure))
      .catch((error: unknown) => Promise.reject(schemaFailed(what, error)))
  } catch (error) {
    throw schemaFailed(what, error)
  }
}

/** A message whose payload is not valid. Another attempt with the same payload cannot help. */
export class InvalidMessage extends MqttError {}

/** Validates the decoded payload of a message. @throws MqttError `PAYLOAD_INVALID` */
export function validPayload(
  check: PayloadCheck,
  { topic }: { readonly topic: string },
  value: unknown,
): unknown {
  return validated(check, `the payload on "${topic}"`, value, InvalidMessage)
}

/**
 * Validates for a call that cannot wait.
 * @throws MqttError `PAYLOAD_INVALID`; `INVALID_OPTION` for a schema that validates asynchronously
 */
export function validatedNow(check: PayloadCheck, what: string, value: unknown, instead: string): unknown {
  const output = validated(check, what, value)
  if (!(output instanceof Promise)) return output
  output.catch(() => {})
  throw new MqttError('INVALID_OPTION', `the schema of ${what} validates asynchronously; ${instead}`)
}

function outputOf(
  result: SchemaResult<unknown>,
  { showsValues }: PayloadCheck,
  what: string,
  value: unknown,
  Failure: typeof MqttError,
): unknown {
  if (result.issues === undefined) {
    if ('value' in result) return result.value
    throw new TypeError('the schema returned neither a value nor issues')
  }
  const issues = result.issues.slice(0, MOST_ISSUES).map(issue => payloadIssue(issue, value, showsValues))
  const texts = issues.map(({ path, message }) => textOfIssue(path, message))
  throw new Failure('PAYLOAD_INVALID', `${what} is not valid: ${texts.join('; ')}`, { issues })
}

/** What a schema throws may quote the payload, which must not appear in a log. */
function schemaFailed(what: string, cause: unknown): MqttError {
  if (cause instanceof MqttError) return cause
  const kind = isError(cause) ? cause.name : 'error'
  return new MqttError('PAYLOAD_INVALID', `${what} could not be validated: the schema failed (${kind})`, {
    cause,
  })
}

function payloadIssue(issue: SchemaIssue, payload: unknown, showsValues: boolean): PayloadIssue {
  const keys = (issue.path ?? []).map(keyOf)
  const path = keys.join('.')
  const plain = withoutValue(String(issue.message))
  // Arktype begins its messages with the path.
  const message = path !== '' && plain.startsWith(`${path} `) ? plain.slice(path.length + 1) : plain
  // A key of a hostile payload may be as long as the payload.
  return {
    path: path.slice(0, LONGEST_ISSUE),
    message: showsValues ? `${message} (received ${valueAt(payload, keys)})` : message,
  }
}

const LONGEST_VALUE = 100

function valueAt(payload: unknown, keys: readonly string[]): string {
  const read = (value: unknown, key: string): unknown =>
    typeof value === 'object' && value !== null ? Reflect.get(value, key) : undefined
  return readSafely(() => {
    const text = inspect(keys.reduce(read, payload), { depth: 1, breakLength: Number.POSITIVE_INFINITY })
    return text.slice(0, LONGEST_VALUE)
  }, 'an unreadable value')
}
