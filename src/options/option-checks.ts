import type { Duplex } from 'node:stream'
import * as v from 'valibot'
import { WHEN_BLOCKED } from '../core/outbound/publish-outcome.js'
import { resolveAuthentication } from './authentication.js'
import { resolveBrokerLimits } from './broker-profiles.js'
import type { MqttModuleOptions, ReconnectOptions } from './options.js'
import {
  alpn,
  isUrl,
  PASS_THROUGH,
  type PassThroughOptions,
  resolveSocket,
  SOCKET_OPTIONS,
  socketConflict,
  tlsConflict,
  urlAllowed,
  uselessTls,
  withoutSecrets,
} from './pass-through.js'
import {
  checkedElsewhere,
  type ResolvedOptions,
  resolvePresence,
  resolveStoring,
  Sealed,
} from './resolved-options.js'
import {
  aFunction,
  codecSchema,
  delays,
  flag,
  integer,
  invalidOption,
  isTextOrBuffer,
  MAX_DELAY_MS,
  MAX_TIMEOUT_MS,
  MAX_UINT16,
  MAX_UINT32,
  messageProperties,
  oneOf,
  parseOptions,
  qosSchema,
  type Replacements,
  sharedGroupSchema,
  strictObject,
  text,
  topicName,
  uint16,
  uint32,
  userProperties,
  utf8String,
} from './schema.js'

const oneUrl = v.pipe(v.string(urlAllowed), v.check(isUrl, urlAllowed))
const urlList = v.pipe(v.array(oneUrl), v.minLength(1, urlAllowed))
const urlFunction = aFunction<() => string | Promise<string>>(urlAllowed)
/** Messages that wait for a retry or a dead letter must leave room for those of other handlers. */
const MIN_WINDOW = 256
const inbound = v.pipe(
  strictObject({
    concurrency: v.optional(integer(1, MAX_UINT16), 16),
    maxInFlight: v.optional(integer(1, MAX_UINT16)),
    maxQueued: v.optional(integer(1, 10_000_000), 1_000),
    maxQueuedBytes: v.optional(integer(1, Number.MAX_SAFE_INTEGER), 67_108_864),
    overflow: v.optional(oneOf(['drop-oldest', 'drop-newest', 'latest', 'stall']), 'drop-oldest'),
    maxPacketBytes: v.optional(integer(128, 268_435_460), 16_777_216),
  }),
  v.transform(value => ({
    ...value,
    maxInFlight: value.maxInFlight ?? Math.min(MAX_UINT16, Math.max(MIN_WINDOW, 2 * value.concurrency)),
  })),
)

const outbound = strictObject({
  maxInFlight: v.optional(integer(1, MAX_UINT16), 1_000),
  ackTimeoutMs: v.optional(integer(1, MAX_TIMEOUT_MS), 30_000),
  maxDelayMs: v.optional(integer(10, MAX_TIMEOUT_MS), 1_000),
  whenBlocked: v.optional(oneOf(WHEN_BLOCKED), 'drop'),
  maxQueued: v.optional(integer(1, 10_000_000), 1_000),
  maxQueuedBytes: v.optional(integer(1, Number.MAX_SAFE_INTEGER), 1_048_576),
  maxAgeMs: v.optional(integer(1, MAX_DELAY_MS), 60_000),
  overflow: v.optional(oneOf(['drop-oldest', 'drop-newest']), 'drop-oldest'),
  topicAlias: v.optional(flag, true),
  flowControl: v.optional(oneOf(['markers', 'kernel']), 'markers'),
})

const requests = strictObject({
  timeoutMs: v.optional(integer(1, MAX_TIMEOUT_MS), 30_000),
  maxOpen: v.optional(integer(1, 1_000_000), 10_000),
  responseTopicPrefix: v.optional(topicName, 'nestjs-mqtt/responses'),
  responseQos: v.optional(oneOf([0, 1]), 0),
  ackPings: v.optional(flag, true),
  maxStreams: v.optional(integer(1, 1_000_000), 1_000),
  streamLeaseMs: v.optional(integer(1_000, MAX_TIMEOUT_MS), 30_000),
})

const willSchema = strictObject(
  {
    topic: topicName,
    payload: v.custom<string | Buffer>(isTextOrBuffer, 'a string or a Buffer'),
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
})

const passThrough = v.looseObject({
  keepalive: v.optional(uint16),
  clean: v.optional(flag),
  clientId: v.optional(utf8String),
  username: v.optional(utf8String),
  password: v.optional(v.custom<string | Buffer>(isTextOrBuffer, 'a string or a Buffer')),
  servername: v.optional(text()),
  ALPNProtocols: alpn,
  properties: v.optional(connectProperties),
  will: v.optional(willSchema),
  wsOptions: v.optional(v.looseObject({ ALPNProtocols: alpn }, 'an object')),
})

const schema = strictObject(
  {
    ...v.entriesFromList(Object.keys(PASS_THROUGH), v.optional(v.unknown())),
    ...passThrough.entries,
    url: v.optional(
      v.lazy(input => (typeof input === 'function' ? urlFunction : Array.isArray(input) ? urlList : oneUrl)),
    ),
    credentials: v.optional(
      aFunction<NonNullable<MqttModuleOptions['credentials']>>('a function that returns credentials'),
    ),
    ...v.entriesFromList(SOCKET_OPTIONS, v.optional(v.unknown())),
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
    outbound: v.optional(outbound, {}),
    requests: v.optional(requests, {}),
    allowResponseTopic: v.optional(
      aFunction<NonNullable<MqttModuleOptions['allowResponseTopic']>>('a function of (responseTopic)'),
    ),
    envelope: v.optional(oneOf(['requests', 'all']), 'requests'),
    eventQos: v.optional(qosSchema, 0),
    drainTimeoutMs: v.optional(integer(0, MAX_TIMEOUT_MS), 5_000),
    codec: v.optional(codecSchema, 'json'),
    ...checkedElsewhere,
    sharedGroup: v.optional(sharedGroupSchema),
    variables: v.optional(v.record(v.string(), text(), 'an object with string values'), {}),
  },
  'an object with options',
)

/** Describes the broker in log lines and errors. */
export function describeTarget({
  secrets,
  createStream,
}: Pick<ResolvedOptions, 'secrets' | 'createStream'>): string {
  if (createStream !== undefined) return 'the stream from createStream()'
  const { urls, createUrl } = secrets.reveal()
  return createUrl === undefined ? urls.map(withoutSecrets).join(', ') : 'the URL from url()'
}

const URL_PARTS =
  'make it part of "url", such as "mqtt://host:1883"; use "mqtts" for TLS, and "ws" or "wss" for WebSocket'
const NO_STORE = 'remove it, and set "outbound.whenBlocked" to choose what waits during an outage'
const ALWAYS = 'remove it; every subscription is restored after a reconnect'

/** What to use in place of options of Nest's built-in transport, of `nest-mqtt` and of `mqtt`. */
export const REPLACEMENTS: Replacements = {
  authPacket: 'use "authentication"',
  beforeHandle: 'use a guard or an interceptor',
  caPaths: 'use "caPath"',
  connectTimeout: 'use "connectTimeoutMs"',
  deserializer: 'use "codec"',
  host: URL_PARTS,
  hostname: URL_PARTS,
  incomingStore: NO_STORE,
  logger: 'remove it, and set the logger of Nest with app.useLogger()',
  maxConnectionAttempts:
    'use connect: "fail-fast" to fail after one round of attempts, or "background" to start without a broker',
  options: 'pass its properties to forRoot() directly',
  outgoingStore: NO_STORE,
  path: URL_PARTS,
  port: URL_PARTS,
  'properties.authenticationData': 'use "authentication"',
  'properties.authenticationMethod': 'use "authentication"',
  protocol: URL_PARTS,
  protocolId: 'use "protocolVersion"',
  qos: 'set it for each handler with handle({ qos }), and for each publish',
  queue: 'use "sharedGroup"',
  queueQoSZero: 'use "outbound.whenBlocked"',
  reconnectOnConnackError: 'use "reconnect.verdict"',
  reconnectPeriod: 'use "reconnect.delayMs"',
  rejectUnauthorized: 'remove it, or set "insecureTls: true" to disable the verification',
  reschedulePings: 'remove it',
  resubscribe: ALWAYS,
  serializer: 'use "codec"',
  servers: 'pass a list to "url"',
  share: 'use "sharedGroup"',
  socksProxy: 'use "proxy"',
  socksTimeout: 'use "connectTimeoutMs"',
  subscribeOptions: 'use the options of each handler: handle({ qos, noLocal, retainHandling })',
  transport: 'remove it; MqttModule.microservice() sets the transport',
  userProperties:
    'use "properties.userProperties" for CONNECT, and the option "properties" of each publish for messages',
}

/**
 * Validates the options and fills in the defaults.
 * @throws MqttError `INVALID_OPTION` for an unknown option or an invalid value
 */
export function resolveOptions(options: MqttModuleOptions, owner = 'MqttModule options'): ResolvedOptions {
  const checked = parseOptions(owner, schema, options, REPLACEMENTS)
  assertConsistent(options, owner)
  const clean = options.clean ?? true
  const { proxy, tlsFiles, ...socket } = resolveSocket(owner, options)
  const url = checked.createStream === undefined ? checked.url : undefined
  const createUrl = typeof url === 'function' ? url : undefined
  const urls = typeof url === 'function' ? [] : [url ?? []].flat()
  const useless = uselessTls(urls, options)
  if (useless !== undefined) throw invalidOption(owner, useless)
  const clientId = options.clientId || `nestjs-mqtt-${crypto.randomUUID()}`
  const { presence, passThrough } = resolvePresence(owner, options, clientId, passThroughOf(options, clean))
  const authentication = resolveAuthentication(owner, options)
  return {
    credentials: checked.credentials,
    authentication,
    ...resolveBrokerLimits(owner, options),
    ...socket,
    onStopped: checked.onStopped,
    refusedSubscription: checked.refusedSubscription,
    createStream: checked.createStream,
    sharedGroup: checked.sharedGroup,
    connect: checked.connect,
    connectTimeoutMs: checked.connectTimeoutMs,
    protocolVersion: authentication === undefined ? checked.protocolVersion : 5,
    reconnect: { ...checked.reconnect, verdict: checked.reconnect.verdict },
    inbound: checked.inbound,
    outbound: checked.outbound,
    requests: checked.requests,
    allowResponseTopic: checked.allowResponseTopic,
    envelope: checked.envelope,
    eventQos: checked.eventQos,
    drainTimeoutMs: checked.drainTimeoutMs,
    codec: checked.codec,
    variables: checked.variables,
    clean,
    clientId,
    presence,
    storing: resolveStoring(owner, options),
    keepsSession: !clean && passThrough.properties?.sessionExpiryInterval !== 0,
    targets: Math.max(1, urls.length),
    secrets: new Sealed({ urls, createUrl, proxy, passThrough, tlsFiles }),
  }
}

/** Checks what concerns several options. @throws MqttError `INVALID_OPTION` */
function assertConsistent(options: MqttModuleOptions, owner: string): void {
  if (options.url === undefined && options.createStream === undefined)
    throw invalidOption(owner, `"url" must be ${urlAllowed}, but is missing`)
  if (options.properties?.receiveMaximum !== undefined)
    throw invalidOption(owner, '"properties.receiveMaximum" cannot be set; use "inbound.maxInFlight"')
  const conflict = tlsConflict(options) ?? socketConflict(options)
  if (conflict !== undefined) throw invalidOption(owner, conflict)
  if (options.clean === false && !options.clientId)
    throw invalidOption(
      owner,
      '"clientId" is missing; clean: false requires a Client Identifier that is the same after a restart, so that the broker can find the session',
    )
}

function passThroughOf(options: MqttModuleOptions, clean: boolean): PassThroughOptions {
  const given = Object.entries(options).filter(([name, value]) => name in PASS_THROUGH && value !== undefined)
  const kept: PassThroughOptions = Object.fromEntries(given)
  if (clean) return kept
  const sessionExpiryInterval = kept.properties?.sessionExpiryInterval ?? MAX_UINT32
  return { ...kept, properties: { ...kept.properties, sessionExpiryInterval } }
}
