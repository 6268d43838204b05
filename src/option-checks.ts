import type { Duplex } from 'node:stream'
import * as v from 'valibot'
import type { CodecOption } from './codec.js'
import { MqttError } from './errors.js'
import {
  type ConnectionFailure,
  type MqttModuleOptions,
  PASS_THROUGH,
  type PassThroughOptions,
  type ReconnectOptions,
  type ResolvedOptions,
} from './options.js'
import { isTopicName } from './topic/topic-filter.js'

const MAX_DELAY_MS = 86_400_000
const MAX_TIMEOUT_MS = 3_600_000
const MAX_UINT16 = 65_535
const PROTOCOLS = ['mqtt:', 'mqtts:', 'ws:', 'wss:', 'mqtt+srv:', 'mqtts+srv:']

const integer = (min: number, max: number) => {
  const allowed = `an integer from ${min} to ${max}`
  return v.pipe(v.number(allowed), v.integer(allowed), v.minValue(min, allowed), v.maxValue(max, allowed))
}
const oneOf = <const T extends readonly (string | number)[]>(values: T) =>
  v.picklist(values, `one of ${values.map(value => JSON.stringify(value)).join(', ')}`)
/** As valibot's, but every unknown key is an issue of its own. */
export const strictObject = <const E extends v.ObjectEntries>(
  entries: E,
  allowed = 'an object with options',
) => v.objectWithRest(entries, v.never(), allowed)
const text = (allowed = 'a text') => v.pipe(v.string(allowed), v.nonEmpty(allowed))

const isUrl = (value: string): boolean => {
  const url = URL.canParse(value) ? new URL(value) : undefined
  return url !== undefined && PROTOCOLS.includes(url.protocol) && url.hostname !== ''
}
const urlAllowed =
  'a URL with host, such as "mqtt://localhost:1883" (mqtt, mqtts, ws, wss, mqtt+srv or mqtts+srv), or a list of them'
const codecAllowed = '"json", "text", "bytes", or an object with the functions encode and decode'
const delayAllowed = 'a list of delays, a function of (attempt, cause), or { min, max, jitter }'
const groupAllowed = 'a name without "/", "+" and "#"'

const oneUrl = v.pipe(v.string(urlAllowed), v.check(isUrl, urlAllowed))
const urlList = v.pipe(v.array(oneUrl), v.minLength(1, urlAllowed))
const aFunction = <F>(allowed: string) => v.custom<F>(value => typeof value === 'function', allowed)

const backoff = v.pipe(
  strictObject(
    {
      min: v.optional(integer(1, MAX_DELAY_MS), 500),
      max: v.optional(integer(1, MAX_DELAY_MS), 30_000),
      jitter: v.optional(oneOf(['full', 'decorrelated', 'none']), 'full'),
    },
    delayAllowed,
  ),
  v.check(value => value.min <= value.max, '"min" not above "max"'),
)
const delayList = v.pipe(
  v.array(integer(0, MAX_DELAY_MS), delayAllowed),
  v.minLength(1, 'a list with at least one delay'),
)
const delayFunction = v.custom<(attempt: number, cause: ConnectionFailure) => number>(
  value => typeof value === 'function',
  delayAllowed,
)
const delays = v.lazy(input => {
  if (Array.isArray(input)) return delayList
  if (typeof input === 'function') return delayFunction
  return backoff
})

/** A codec option: a name, or an object with `encode` and `decode`. */
export const codecSchema = v.custom<CodecOption>(value => {
  if (typeof value === 'string') return ['json', 'text', 'bytes'].includes(value)
  if (typeof value !== 'object' || value === null || !('encode' in value) || !('decode' in value))
    return false
  return typeof value.encode === 'function' && typeof value.decode === 'function'
}, codecAllowed)

/** A ShareName (MQTT 5, 4.8.2). */
export const sharedGroupSchema = v.pipe(v.string(groupAllowed), v.regex(/^[^/+#]+$/, groupAllowed))

const inbound = v.pipe(
  strictObject({
    concurrency: v.optional(integer(1, MAX_UINT16), 16),
    maxInFlight: v.optional(integer(1, MAX_UINT16)),
    maxQueued: v.optional(integer(1, 10_000_000), 1_000),
  }),
  v.transform(value => ({
    ...value,
    maxInFlight: value.maxInFlight ?? Math.min(MAX_UINT16, 2 * value.concurrency),
  })),
)

const MAX_UINT32 = 0xffff_ffff
const uint16 = integer(0, MAX_UINT16)
const uint32 = integer(0, MAX_UINT32)
const flag = v.boolean('true or false')
const utf8Allowed = 'a text of at most 65,535 bytes of UTF-8'
const utf8String = v.pipe(
  v.string(utf8Allowed),
  v.check(value => value.isWellFormed() && Buffer.byteLength(value) <= MAX_UINT16, utf8Allowed),
)
const binaryAllowed = 'a Buffer of at most 65,535 bytes'
const binaryData = v.custom<Buffer>(
  value => Buffer.isBuffer(value) && value.length <= MAX_UINT16,
  binaryAllowed,
)
const userProperties = v.record(
  utf8String,
  v.union([utf8String, v.array(utf8String)], utf8Allowed),
  'an object of texts',
)
const topicName = v.pipe(utf8String, v.check(isTopicName, 'a Topic Name'))

/** Properties that a PUBLISH and a will have in common (MQTT 5, 3.3.2.3 and 3.1.3.2). */
const messageProperties = {
  payloadFormatIndicator: v.optional(flag),
  messageExpiryInterval: v.optional(uint32),
  contentType: v.optional(utf8String),
  responseTopic: v.optional(topicName),
  correlationData: v.optional(binaryData),
  userProperties: v.optional(userProperties),
}
const qosSchema = oneOf([0, 1, 2])
const willSchema = strictObject(
  {
    topic: topicName,
    payload: v.custom<string | Buffer>(isTextOrBuffer, 'a text or a Buffer'),
    qos: v.optional(qosSchema),
    retain: v.optional(flag),
    properties: v.optional(strictObject({ ...messageProperties, willDelayInterval: v.optional(uint32) })),
  },
  'an object with topic and payload',
)
const connectProperties = strictObject({
  sessionExpiryInterval: v.optional(uint32),
  receiveMaximum: v.optional(uint16),
  maximumPacketSize: v.optional(integer(1, MAX_UINT32)),
  topicAliasMaximum: v.optional(uint16),
  requestResponseInformation: v.optional(flag),
  requestProblemInformation: v.optional(flag),
  userProperties: v.optional(userProperties),
  authenticationMethod: v.optional(utf8String),
  authenticationData: v.optional(binaryData),
})

function isTextOrBuffer(value: unknown): value is string | Buffer {
  return typeof value === 'string' || Buffer.isBuffer(value)
}

const passThrough = v.looseObject({
  keepalive: v.optional(uint16),
  clean: v.optional(flag),
  clientId: v.optional(utf8String),
  username: v.optional(v.string('a text')),
  password: v.optional(v.custom<string | Buffer>(isTextOrBuffer, 'a text or a Buffer')),
  rejectUnauthorized: v.optional(flag),
  servername: v.optional(text()),
  socksProxy: v.optional(text()),
  socksTimeout: v.optional(integer(1, MAX_TIMEOUT_MS)),
  properties: v.optional(connectProperties),
  will: v.optional(willSchema),
  wsOptions: v.optional(v.looseObject({}, 'an object')),
})

const tryPublishEntries = {
  retain: v.optional(flag),
  codec: v.optional(codecSchema),
  properties: v.optional(strictObject(messageProperties)),
}

/** Options of `tryPublish`. */
export const tryPublishSchema = strictObject(tryPublishEntries, 'an object with publish options')

/** Options of `publish`. */
export const publishSchema = strictObject(
  { ...tryPublishEntries, qos: v.optional(qosSchema) },
  'an object with publish options',
)

const schema = strictObject(
  {
    ...v.entriesFromList(Object.keys(PASS_THROUGH), v.optional(v.unknown())),
    ...passThrough.entries,
    url: v.optional(v.lazy(input => (Array.isArray(input) ? urlList : oneUrl))),
    credentials: v.optional(
      aFunction<NonNullable<MqttModuleOptions['credentials']>>('a function that gives credentials'),
    ),
    localAddress: v.optional(v.pipe(v.string('an IP address'), v.ip('an IP address'))),
    onStopped: v.optional(aFunction<NonNullable<MqttModuleOptions['onStopped']>>('a function of (cause)')),
    refusedSubscription: v.optional(oneOf(['fail', 'warn']), 'fail'),
    createStream: v.optional(
      v.custom<() => Duplex>(value => typeof value === 'function', 'a function that returns a Duplex'),
    ),
    connect: v.optional(oneOf(['fail-fast', 'background']), 'fail-fast'),
    connectTimeoutMs: v.optional(integer(1, MAX_TIMEOUT_MS), 10_000),
    protocolVersion: v.optional(oneOf(['auto', 4, 5]), 'auto'),
    reconnect: v.optional(
      strictObject({
        delayMs: v.optional(delays, {}),
        resetAfterMs: v.optional(integer(0, MAX_DELAY_MS), 10_000),
        verdict: v.optional(aFunction<NonNullable<ReconnectOptions['verdict']>>('a function of (cause)')),
      }),
      {},
    ),
    inbound: v.optional(inbound, {}),
    outbound: v.optional(strictObject({ maxInFlight: v.optional(integer(1, MAX_UINT16), 1_000) }), {}),
    drainTimeoutMs: v.optional(integer(0, MAX_TIMEOUT_MS), 5_000),
    codec: v.optional(codecSchema, 'json'),
    sharedGroup: v.optional(sharedGroupSchema),
    variables: v.optional(v.record(v.string(), text(), 'an object of texts'), {}),
  },
  'an object with options',
)

const SECRET = /pass|key|cert|^ca$|caPaths|wsOptions|username|properties|will/i

/** A URL that was checked, for a log or an error: without user, password and query. */
export function withoutSecrets(url: string): string {
  return url.trim().replace(/^([a-z+]+:)[/\\]*(?:[^/?#]*@)?([^?#]*).*$/is, '$1//$2')
}

/** The broker as a log or an error names it. */
export function describeTarget({
  urls,
  createStream,
}: Pick<ResolvedOptions, 'urls' | 'createStream'>): string {
  return createStream === undefined ? urls.map(withoutSecrets).join(', ') : 'the stream of createStream'
}

/** What was given, short, and without anything that may be a secret. */
function describeInput(path: string, input: unknown): string {
  if (SECRET.test(path)) return `a value of type ${input === null ? 'null' : typeof input} (not shown)`
  if (typeof input === 'string') {
    // Whatever the option, it may be a URL with credentials or a token in it.
    return JSON.stringify(/[@?]/.test(input) ? `${/^[a-z+]+:\/\//i.exec(input)?.[0] ?? ''}…` : input)
  }
  if (typeof input === 'function') return 'a function'
  if (Array.isArray(input)) return `a list of ${input.length}`
  if (typeof input === 'object' && input !== null) return 'an object'
  return String(input)
}

function describeIssue(issue: v.BaseIssue<unknown>): string {
  const path = pathOf(issue)
  if (issue.type === 'never') return `"${path}" is not an option here`
  const given =
    issue.input === undefined ? 'nothing was given' : `${describeInput(path, issue.input)} was given`
  return `"${path}": ${given}, allowed is ${issue.message}`
}

/**
 * Checks `input` against a schema, at one of the doors of the package.
 * @throws MqttError `INVALID_OPTION` that names every option at fault, what was given and what is allowed
 */
export function parseOptions<S extends v.GenericSchema>(
  door: string,
  checked: S,
  input: unknown,
): v.InferOutput<S> {
  const result = v.safeParse(checked, input)
  if (result.success) return result.output
  throw invalidOption(door, mostTelling(result.issues).map(describeIssue).join('; '))
}

const pathOf = (issue: v.BaseIssue<unknown>): string => v.getDotPath(issue) ?? ''

/** One issue for each option, and none for a group that only fails with a part of it. */
function mostTelling(issues: readonly v.BaseIssue<unknown>[]): v.BaseIssue<unknown>[] {
  const paths = issues.map(pathOf)
  return issues.filter((_issue, index) => {
    const path = paths[index] ?? ''
    return paths.indexOf(path) === index && !paths.some(other => other.startsWith(`${path}.`))
  })
}

function invalidOption(door: string, problem: string): MqttError {
  return new MqttError('INVALID_OPTION', `${door}: ${problem}`)
}

const DOOR = 'MqttModule options'
const NEVER_EXPIRES = 0xffff_ffff

/**
 * The one place where options are checked and defaults are filled in.
 * @throws MqttError `INVALID_OPTION`
 */
export function resolveOptions(options: MqttModuleOptions): ResolvedOptions {
  const checked = parseOptions(DOOR, schema, options)
  if (checked.url === undefined && checked.createStream === undefined) {
    throw invalidOption(DOOR, `"url": nothing was given, allowed is ${urlAllowed}`)
  }
  if (options.properties?.receiveMaximum !== undefined) {
    throw invalidOption(
      DOOR,
      '"properties.receiveMaximum" is set by this package; give "inbound.maxInFlight"',
    )
  }
  const clean = options.clean ?? true
  if (!clean && !options.clientId) {
    throw invalidOption(
      DOOR,
      '"clientId": nothing was given, but clean: false keeps a session, and the broker finds it again by a Client Identifier that is the same after a restart',
    )
  }
  return {
    urls: checked.createStream === undefined ? [checked.url ?? []].flat() : [],
    credentials: checked.credentials,
    localAddress: checked.localAddress,
    onStopped: checked.onStopped,
    refusedSubscription: checked.refusedSubscription,
    createStream: checked.createStream,
    sharedGroup: checked.sharedGroup,
    connect: checked.connect,
    connectTimeoutMs: checked.connectTimeoutMs,
    protocolVersion: checked.protocolVersion,
    reconnect: { ...checked.reconnect, verdict: checked.reconnect.verdict },
    inbound: checked.inbound,
    outbound: checked.outbound,
    drainTimeoutMs: checked.drainTimeoutMs,
    codec: checked.codec,
    variables: checked.variables,
    clean,
    clientId: options.clientId || `nestjs-mqtt-${crypto.randomUUID()}`,
    passThrough: passThroughOf(options, clean),
  }
}

function passThroughOf(options: MqttModuleOptions, clean: boolean): PassThroughOptions {
  const given = Object.entries(options).filter(([name, value]) => name in PASS_THROUGH && value !== undefined)
  const kept: PassThroughOptions = Object.fromEntries(given)
  if (clean) return kept
  const sessionExpiryInterval = kept.properties?.sessionExpiryInterval ?? NEVER_EXPIRES
  return { ...kept, properties: { ...kept.properties, sessionExpiryInterval } }
}
