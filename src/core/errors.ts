import { toldBy } from './inbound/told-error.js'

const BRAND = Symbol.for('nestjs-mqtt.error')

/** Every code that an {@link MqttError} can carry. The list is closed: a new code is a new minor version. */
export const MQTT_ERROR_CODES = [
  /** An option of the module, a handler or a publish is unknown, of the wrong type or out of range. */
  'INVALID_OPTION',
  /** A Topic Name is empty, too long, or holds a wildcard or NUL (MQTT 5, 4.7). */
  'INVALID_TOPIC_NAME',
  /** A Topic Filter or pattern breaks the rules of MQTT 5, 4.7 and 4.8.2. */
  'INVALID_TOPIC_FILTER',
  /** The codec could not encode a payload. */
  'PAYLOAD_NOT_ENCODABLE',
  /** The codec could not decode a payload. */
  'PAYLOAD_NOT_DECODABLE',
  /** A packet is larger than the broker's Maximum Packet Size (MQTT 5, 3.2.2.3.6). */
  'PACKET_TOO_LARGE',
  /** A QoS above the broker's Maximum QoS (MQTT 5, 3.2.2.3.4). */
  'QOS_NOT_SUPPORTED',
  /** Retain while the broker said Retain Available 0 (MQTT 5, 3.2.2.3.5). */
  'RETAIN_NOT_SUPPORTED',
  /** The network connection could not be made, or ended before CONNACK. */
  'CONNECT_FAILED',
  /** The broker answered CONNECT with a Reason Code that is not success; see `reasonCode`. */
  'CONNECT_REFUSED',
  /** An established connection ended. */
  'CONNECTION_LOST',
  /** The connection was closed by the application, or could not be used because it is closing. */
  'CONNECTION_CLOSED',
  /** The broker refused a Topic Filter in SUBACK; see `reasonCode`. */
  'SUBSCRIBE_REFUSED',
  /** The broker refused to remove a subscription in UNSUBACK; see `reasonCode`. */
  'UNSUBSCRIBE_REFUSED',
  /** A request or its publish was dropped or refused before a responder could have it; see `reasonCode`. */
  'NOT_SENT',
  /** The broker said that nobody subscribes to the topic of a request (MQTT 5, 3.4.2.1). */
  'NO_RESPONDER',
  /** The responder answered with an error; see `response`. */
  'REQUEST_FAILED',
  /** As many requests are open as `requests.maxOpen` allows. */
  'TOO_MANY_REQUESTS',
  /**
   * No response can be delivered at QoS 1: every message that the broker may deliver before it gets an acknowledgement
   * belongs to a handler that waits for a response. Deliver requests and responses at QoS 0, or raise
   * `inbound.maxInFlight`.
   */
  'REQUEST_BLOCKED',
  /** A wait ended because its time was over. */
  'TIMEOUT',
  /** A wait ended because its AbortSignal was aborted. */
  'ABORTED',
] as const

/** One of {@link MQTT_ERROR_CODES}. */
export type MqttErrorCode = (typeof MQTT_ERROR_CODES)[number]

/** What an {@link MqttError} may carry besides its code and message. */
export interface MqttErrorDetails {
  /** What led to this error. Kept as it came. */
  readonly cause?: unknown
  /** MQTT 5 Reason Code, or MQTT 3.1.1 return code, where a broker's answer is the reason. */
  readonly reasonCode?: number
  /** Where the broker sends this client (MQTT 5, 4.11), with Reason Code 0x9C or 0x9D. */
  readonly serverReference?: string
  /** What a responder sent as its error, decoded. */
  readonly response?: unknown
}

/**
 * The error of this package. Recognise it with {@link isMqttError}, which also works across two installed
 * copies; switch on `code`.
 */
export class MqttError extends Error {
  readonly code: MqttErrorCode
  declare readonly reasonCode?: number
  declare readonly serverReference?: string
  declare readonly response?: unknown

  constructor(code: MqttErrorCode, message: string, details: MqttErrorDetails = {}) {
    super(message, 'cause' in details ? { cause: details.cause } : undefined)
    this.name = 'MqttError'
    this.code = code
    if (details.reasonCode !== undefined) this.reasonCode = details.reasonCode
    if (details.serverReference !== undefined) this.serverReference = details.serverReference
    // What came from outside belongs into no log by accident.
    if (details.response !== undefined)
      Object.defineProperty(this, 'response', { value: details.response, enumerable: false })
    Object.defineProperty(this, BRAND, { value: true })
  }

  /**
   * As a console shows it: what led to it by name, code and text alone, since the errors of other packages carry
   * requests, URLs and options along. All of them are in `cause`.
   */
  [Symbol.for('nodejs.util.inspect.custom')](): string {
    const facts = this.reasonCode === undefined ? this.code : `${this.code}, Reason Code ${this.reasonCode}`
    return `${this.stack ?? this.message} {${facts}}${chainOf(this.cause).map(causeLine).join('')}`
  }

  /** For a health check or a structured log: with the message, which JSON leaves out of an Error, and no stack. */
  toJSON(): { name: string; code: MqttErrorCode; message: string; reasonCode?: number } {
    const { name, code, message, reasonCode } = this
    return { name, code, message, ...(reasonCode === undefined ? {} : { reasonCode }) }
  }
}

/** Whether `value` is an error of this package, and of `code` when one is given. Never throws. */
export function isMqttError(value: unknown, code?: MqttErrorCode): value is MqttError {
  return (
    value instanceof Error &&
    BRAND in value &&
    (code === undefined || ('code' in value && value.code === code))
  )
}

function causeLine(cause: unknown): string {
  if (!(cause instanceof Error)) return `\n  [cause]: ${messageOf(cause) || typeof cause}`
  const code = 'code' in cause ? ` {${String(cause.code)}}` : ''
  return `\n  [cause]: ${cause.name}: ${messageOf(cause)}${code}`
}

/** The innermost readable message of an error chain, for one line of a log. */
export function describeCause(cause: unknown): string {
  const readable = chainOf(cause)
    .map(messageOf)
    .findLast(message => message !== '')
  return readable ?? (cause instanceof Error ? cause.name : 'unknown cause')
}

/** Why a handler failed. Nest's filters make objects of errors. */
export function describeFailure(error: unknown): string {
  // Its cause may quote the payload, which belongs into no log.
  if (isMqttError(error, 'PAYLOAD_NOT_DECODABLE')) return error.message
  const told = toldBy(error)
  if (told !== undefined) return told.message
  const isPlain = !(error instanceof Error) && typeof error === 'object' && error !== null
  return isPlain && 'message' in error ? textOf(error.message) : describeCause(error)
}

const ORIGINAL = Symbol('original')

/** Keeps the error behind what is told of it, for the log of this process alone. */
export function withOriginal<T extends object>(told: T, original: unknown): T {
  return Object.defineProperty(told, ORIGINAL, { value: original })
}

/** The error behind what is told of it, or the error itself. */
export function originalOf(error: unknown): unknown {
  return typeof error === 'object' && error !== null && ORIGINAL in error ? error[ORIGINAL] : error
}

/** What came from outside may be nothing that a text can be made of. */
function textOf(value: unknown): string {
  try {
    return String(value)
  } catch {
    return 'a failure without a text'
  }
}

/** A chain may be a circle. */
const MAX_CHAIN = 10

function chainOf(cause: unknown): unknown[] {
  const chain: unknown[] = []
  for (let link = cause; link !== undefined && chain.length < MAX_CHAIN; ) {
    chain.push(link)
    link = link instanceof Error ? link.cause : undefined
  }
  return chain
}

function messageOf(cause: unknown): string {
  if (typeof cause === 'string') return cause
  if (cause instanceof AggregateError && cause.message === '')
    return cause.errors.map(describeCause).join('; ')
  return cause instanceof Error ? cause.message : ''
}
