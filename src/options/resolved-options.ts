import type { Duplex } from 'node:stream'
import * as v from 'valibot'
import type { DelayRule } from '../core/connection/reconnect-rules.js'
import type { MessageStore, StoredSettlement } from '../core/outbound/message-store.js'
import type { OutboundMessage, PublishTerms } from '../core/outbound/outbound-message.js'
import { assertTopicName, fillVariables } from '../core/topic/topic-filter.js'
import type { ResolvedAuthentication } from './authentication.js'
import { encodePayload, resolveCodec } from './codec.js'
import type {
  ConnectionFailure,
  InboundOptions,
  MqttCredentials,
  MqttModuleOptions,
  OutboundOptions,
  RequestDefaults,
  Verdict,
} from './options.js'
import type { KnownLimits, PassThroughOptions, ResolvedSocket, SocketSecrets } from './pass-through.js'
import {
  aFunction,
  integer,
  invalidOption,
  MAX_TIMEOUT_MS,
  MAX_UINT32,
  parseOptions,
  strictObject,
} from './schema.js'

const HIDDEN = '[hidden]'

/** Holds a secret. Only `reveal()` returns it; `util.inspect` and JSON do not show it. */
export class Sealed<T> {
  readonly #value: T

  constructor(value: T) {
    this.#value = value
  }

  /** A method, because `util.inspect` can be configured to call getters. */
  reveal(): T {
    return this.#value
  }

  toJSON(): string {
    return HIDDEN
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return HIDDEN
  }
}

type Defaulted =
  | 'refusedSubscription'
  | 'connect'
  | 'connectTimeoutMs'
  | 'protocolVersion'
  | 'drainTimeoutMs'
  | 'codec'
  | 'variables'
  | 'clean'
  | 'envelope'
  | 'eventQos'

/** The encoded messages of `presence`. */
export interface ResolvedPresence {
  readonly topic: string
  readonly online: Buffer
  readonly offline: Buffer
}

/** Validated options with all defaults. */
export interface ResolvedOptions
  extends Required<Pick<MqttModuleOptions, Defaulted>>,
    KnownLimits,
    ResolvedSocket {
  readonly createStream: (() => Duplex) | undefined
  readonly credentials: (() => MqttCredentials | Promise<MqttCredentials>) | undefined
  readonly authentication: ResolvedAuthentication | undefined
  readonly onStopped: ((cause: ConnectionFailure) => void) | undefined
  readonly sharedGroup: string | undefined
  readonly presence: ResolvedPresence | undefined
  readonly storing: ResolvedStoring | undefined
  readonly clientId: string
  readonly reconnect: {
    readonly delayMs: DelayRule
    readonly resetAfterMs: number
    readonly verdict: ((cause: ConnectionFailure) => Verdict | undefined) | undefined
  }
  readonly inbound: Required<InboundOptions>
  readonly outbound: Required<OutboundOptions>
  readonly requests: Required<RequestDefaults>
  readonly allowResponseTopic: ((responseTopic: string) => boolean) | undefined
  /** Whether the broker keeps the session when a connection ends. */
  readonly keepsSession: boolean
  /** Number of URLs to try. */
  readonly targets: number
  readonly secrets: Sealed<DialSecrets>
}

/** Addresses and credentials. They contain passwords, tokens and keys. */
export interface DialSecrets extends SocketSecrets {
  /** Empty if `createStream` or `createUrl` is set. */
  readonly urls: readonly string[]
  /** Returns the URL of an attempt. */
  readonly createUrl: (() => string | Promise<string>) | undefined
  /** Options that are passed to `mqtt` unchanged. */
  readonly passThrough: PassThroughOptions
}

/** Largest Will Payload, which has a length of two bytes (MQTT 5, 3.1.3.4). */
const MAX_WILL_BYTES = 65_535
const SECONDS = integer(0, MAX_UINT32 - 1)
const given = v.custom<unknown>(value => value !== undefined, 'a payload')

const schema = strictObject({
  presence: strictObject(
    { topic: v.string('a Topic Name'), online: given, offline: given, delaySeconds: v.optional(SECONDS) },
    'an object with topic, online and offline',
  ),
})

/** The messages of `presence`, and the options of `mqtt` for its will. */
interface PresenceParts {
  readonly presence: ResolvedPresence | undefined
  readonly passThrough: PassThroughOptions
}

/**
 * Validates `presence` and encodes its messages.
 * @throws MqttError `INVALID_OPTION`
 */
export function resolvePresence(
  owner: string,
  options: MqttModuleOptions,
  clientId: string,
  passThrough: PassThroughOptions,
): PresenceParts {
  if (options.presence === undefined) return { presence: undefined, passThrough }
  const { delaySeconds = 0, ...given } = parseOptions(owner, schema, { presence: options.presence }).presence
  if (options.will !== undefined)
    throw invalidOption(
      owner,
      '"will" and "presence" are both set; remove "will", because presence sets the will',
    )
  const invalid = (problem: string) => invalidOption(owner, problem)
  const topic = topicOf(given.topic, { ...options.variables, clientId }, invalid)
  const encode = (name: 'online' | 'offline'): Buffer => encoded(topic, name, given[name], options, invalid)
  const presence = { topic, online: encode('online'), offline: encode('offline') }
  return { presence, passThrough: withWill(passThrough, presence, delaySeconds, invalid) }
}

type Invalid = (problem: string) => Error

function topicOf(pattern: string, variables: Readonly<Record<string, string>>, invalid: Invalid): string {
  try {
    const topic = fillVariables(pattern, variables)
    assertTopicName(topic)
    return topic
  } catch (error) {
    throw invalid(`"presence.topic": ${messageOf(error)}`)
  }
}

function encoded(
  topic: string,
  name: 'online' | 'offline',
  payload: unknown,
  { codec = 'json' }: MqttModuleOptions,
  invalid: Invalid,
): Buffer {
  let bytes: Buffer
  try {
    bytes = encodePayload(resolveCodec(codec), topic, payload)
  } catch (error) {
    throw invalid(`"presence.${name}": ${messageOf(error)}`)
  }
  if (bytes.length === 0)
    throw invalid(
      `"presence.${name}" is empty; an empty retained message removes the message from the broker`,
    )
  if (bytes.length > MAX_WILL_BYTES)
    throw invalid(`"presence.${name}" has ${bytes.length} bytes; at most ${MAX_WILL_BYTES} are allowed`)
  return bytes
}

/** Adds the will, and keeps the session for as long as the will is delayed. */
function withWill(
  passThrough: PassThroughOptions,
  { topic, offline }: ResolvedPresence,
  delaySeconds: number,
  invalid: Invalid,
): PassThroughOptions {
  const will = { topic, payload: offline, qos: 1 as const, retain: true }
  if (delaySeconds === 0) return { ...passThrough, will }
  const { sessionExpiryInterval = delaySeconds } = passThrough.properties ?? {}
  if (sessionExpiryInterval < delaySeconds)
    throw invalid(
      `"properties.sessionExpiryInterval" is ${sessionExpiryInterval}, but must be at least "presence.delaySeconds", ${delaySeconds}, because the broker publishes the will when the session ends`,
    )
  return {
    ...passThrough,
    will: { ...will, properties: { willDelayInterval: delaySeconds } },
    properties: { ...passThrough.properties, sessionExpiryInterval },
  }
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

/** Options that `resolvePresence`, `resolveStoring` and `resolveAuthentication` check. */
export const checkedElsewhere = v.entriesFromList(
  ['presence', 'store', 'storeAfterMs', 'onStoredSettled', 'authentication', 'brokerLimits'],
  v.optional(v.unknown()),
)

/** A message of a QoS that has an acknowledgement. */
export type StorableMessage = OutboundMessage & { readonly qos: 1 | 2 }

/** The options of the store. */
export interface ResolvedStoring {
  readonly store: MessageStore
  readonly storeAfterMs: number
  readonly onStoredSettled: ((settlement: StoredSettlement) => void) | undefined
}

const STORE_METHODS = ['open', 'add', 'read', 'settle', 'expire', 'outcomes', 'close'] as const

function isStore(value: unknown): value is MessageStore {
  if (typeof value !== 'object' || value === null || !('contents' in value)) return false
  return STORE_METHODS.every(name => typeof Reflect.get(value, name) === 'function')
}

const storingSchema = strictObject({
  store: v.optional(v.custom<MessageStore>(isStore, 'a store, such as sqliteStore("messages.db")')),
  storeAfterMs: v.optional(integer(0, MAX_TIMEOUT_MS)),
  onStoredSettled: v.optional(
    aFunction<NonNullable<MqttModuleOptions['onStoredSettled']>>('a function of (settlement)'),
  ),
})

/** By then most brokers have acknowledged a message. */
const STORE_AFTER_MS = 200

/** @throws MqttError `INVALID_OPTION` */
export function resolveStoring(owner: string, options: MqttModuleOptions): ResolvedStoring | undefined {
  const { store, storeAfterMs, onStoredSettled, outbound } = options
  const checked = parseOptions(owner, storingSchema, { store, storeAfterMs, onStoredSettled })
  if (checked.store !== undefined)
    return {
      store: checked.store,
      storeAfterMs: checked.storeAfterMs ?? STORE_AFTER_MS,
      onStoredSettled: checked.onStoredSettled,
    }
  if (outbound?.whenBlocked === 'store')
    throw invalidOption(owner, `"outbound.whenBlocked" is "store", ${NO_STORE}`)
  const name = storeAfterMs !== undefined ? 'storeAfterMs' : onStoredSettled && 'onStoredSettled'
  if (name !== undefined) throw invalidOption(owner, `"${name}" is set, ${NO_STORE}`)
  return undefined
}

const SET_STORE = 'set it, for example to sqliteStore("messages.db") of nestjs-mqtt/store'
const NO_STORE = `but there is no "store"; ${SET_STORE}`

/** The error for a call that needs the store. */
export function withoutStore(call: string): Error {
  return invalidOption(call, `this client has no "store"; ${SET_STORE}`)
}

/**
 * The message of a publish with `whenBlocked: 'store'`.
 * @throws MqttError `INVALID_OPTION` if it cannot be stored
 */
export function storable(
  message: OutboundMessage,
  { timeoutMs, signal }: PublishTerms,
  storing: ResolvedStoring | undefined,
): StorableMessage {
  const { topic, qos } = message
  const owner = `publish to "${topic}"`
  if (storing === undefined) throw invalidOption(owner, `"whenBlocked" is "store", ${NO_STORE}`)
  if (qos === 0)
    throw invalidOption(
      owner,
      '"whenBlocked" is "store", but a message of QoS 0 has no acknowledgement; set "qos" to 1 or 2, or "whenBlocked" to "drop"',
    )
  if (timeoutMs !== undefined || signal !== undefined)
    throw invalidOption(
      owner,
      '"timeoutMs" and "signal" have no effect with "whenBlocked": "store", which settles by itself; remove them',
    )
  return { ...message, qos }
}
