import type { IClientOptions } from 'mqtt'
import * as v from 'valibot'
import type { BrokerLimits } from '../core/protocol/packets.js'
import { flag, integer, isObject, parseOptions, problemsOf, text } from './schema.js'

/** Options that are passed to the `mqtt` package unchanged. */
export type PassThroughOptions = Pick<IClientOptions, keyof typeof PASS_THROUGH>

/** Names of the options that are passed to `mqtt` unchanged. */
export const PASS_THROUGH = {
  ALPNProtocols: true,
  ca: true,
  cert: true,
  clean: true,
  clientId: true,
  createWebsocket: true,
  keepalive: true,
  key: true,
  password: true,
  properties: true,
  servername: true,
  transformWsUrl: true,
  username: true,
  will: true,
  wsOptions: true,
} as const satisfies Partial<Record<keyof IClientOptions, true>>

/** What is known about the broker. */
export interface KnownLimits {
  /**
   * Limits of the broker in addition to those that it announces in CONNACK (MQTT 5, 3.2.2.3); the stricter one applies. MQTT
   * 3.1.1 brokers announce none. `brokerProfiles` has those of some brokers. @default none
   */
  readonly brokerLimits?: Partial<BrokerLimits>
}

/**
 * TLS files. The client reads them before every attempt to connect, so that a renewed certificate is used without a
 * restart. If a file cannot be read or used, the attempt fails with a cause that names the file.
 */
export interface TlsFileOptions {
  /** CA certificates in PEM format, in place of `ca`: a path or a list of paths. @default none */
  readonly caPath?: string | readonly string[]
  /** Path of the client certificate in PEM format, in place of `cert`. @default none */
  readonly certPath?: string
  /** Path of the private key in PEM format, in place of `key`. @default none */
  readonly keyPath?: string
  /** Passphrase of the private key in `key` or `keyPath`. @default none */
  readonly passphrase?: string
}

/** Credentials for one attempt to connect. */
export interface MqttCredentials
  extends Pick<PassThroughOptions, 'username' | 'password' | 'ca' | 'cert' | 'key'>,
    TlsFileOptions {
  /** HTTP headers of the WebSocket handshake. */
  readonly headers?: Readonly<Record<string, string>>
  /** Authentication Data, such as a token; see the option `authentication`. At most 65,535 bytes. @default none */
  readonly authenticationData?: string | Buffer
  /**
   * Until when these credentials hold, in milliseconds since 1970 (like `Date.now()`). The client renews them before: after 75
   * to 90 % of the remaining time it calls `credentials` again, and authenticates again with AUTH, or without
   * `authentication` connects again. @default they hold for as long as the connection
   */
  readonly expiresAtMs?: number
}

/** A retained message that says whether this client is online. */
export interface PresenceOptions {
  /** Topic Name, different for each client. `${clientId}` and `${name}` of `variables` are replaced by their values. */
  readonly topic: string
  /** Published first on every connection. Encoded by `codec`, 1 to 65,535 bytes. */
  readonly online: unknown
  /** Published before a clean close, and by the broker as the will (MQTT 5, 3.1.2.5) after any other end. */
  readonly offline: unknown
  /**
   * Will Delay Interval in seconds (MQTT 5, 3.1.3.2.2). Also the Session Expiry Interval, unless
   * `properties.sessionExpiryInterval` is set, since the will is sent when the session ends. @default 0
   */
  readonly delaySeconds?: number
}

/** How the client reaches the broker. */
export interface SocketOptions {
  /** Local IP address to connect from, also to a proxy. @default chosen by the operating system */
  readonly localAddress?: string
  /**
   * URL of a proxy: `http://` or `https://` (HTTP CONNECT, RFC 9110, 9.3.6), or `socks5://`, `socks5h://`, `socks4://` or
   * `socks4a://`, which need the package `socks`; user and password in the URL authenticate to the proxy. With `socks5h`,
   * `socks4a`, `http` and `https` the proxy looks up the host of the broker. Environment variables such as `HTTPS_PROXY` are
   * not read.
   * @default none
   */
  readonly proxy?: string
  /**
   * Disables the verification of the certificate and the host name of the broker: anyone on the path can then read and change
   * every message. The client warns about it at every start. @default false
   */
  readonly insecureTls?: boolean
  /**
   * How many days before its end the client warns about a certificate: that of the broker with its chain, and its own.
   * It checks them on every connection and once a day. 0 to 3,650; 0: only when it has expired. @default 30
   */
  readonly certificateWarningDays?: number
}

/** The options of the socket, with defaults. */
export interface ResolvedSocket {
  readonly localAddress: string | undefined
  readonly insecureTls: boolean
  readonly certificateWarningDays: number
}

/** A proxy with its password, and the TLS files with their passphrase. */
export interface SocketSecrets {
  readonly proxy: string | undefined
  readonly tlsFiles: { readonly [K in keyof TlsFileOptions]: TlsFileOptions[K] | undefined }
}

const PROXIES = ['http:', 'https:', 'socks4:', 'socks4a:', 'socks5:', 'socks5h:']
const proxyAllowed = 'a URL of a proxy, such as "http://proxy:3128" or "socks5h://proxy:1080"'

function isProxy(value: string): boolean {
  const url = URL.canParse(value) ? new URL(value) : undefined
  return url !== undefined && PROXIES.includes(url.protocol) && url.hostname !== ''
}

const pathAllowed = 'a file path'
const tlsFiles = v.object({
  caPath: v.optional(
    v.union([text(), v.pipe(v.array(text()), v.minLength(1))], `${pathAllowed} or a list of file paths`),
  ),
  certPath: v.optional(text(pathAllowed)),
  keyPath: v.optional(text(pathAllowed)),
  passphrase: v.optional(v.string('a string')),
})
const schema = v.object({
  ...tlsFiles.entries,
  localAddress: v.optional(v.pipe(v.string('an IP address'), v.ip('an IP address'))),
  proxy: v.optional(v.pipe(text(proxyAllowed), v.check(isProxy, proxyAllowed))),
  insecureTls: v.optional(flag, false),
  certificateWarningDays: v.optional(integer(0, 3_650), 30),
})

const alpnAllowed = 'a list of protocol names of 1 to 255 bytes each, such as ["x-amzn-mqtt-ca"]'

/** Whether each byte that is a length is followed by as many bytes (RFC 7301, 3.1). */
function isProtocolList(value: unknown): boolean {
  if (Array.isArray(value)) return value.every(isProtocolName)
  if (!(value instanceof Uint8Array)) return false
  let at = 0
  for (let length = value[at]; length !== undefined && length > 0; length = value[at]) at += 1 + length
  return at === value.length
}

const isProtocolName = (value: unknown): boolean =>
  typeof value === 'string' && value !== '' && Buffer.byteLength(value) <= 255

type ProtocolList = NonNullable<PassThroughOptions['ALPNProtocols']>

/** For an empty name, Node does not throw, but aborts the process. With a type, because TypeScript 5.6 cannot read the inferred one. */
export const alpn: v.OptionalSchema<v.CustomSchema<ProtocolList, string>, undefined> = v.optional(
  v.custom<ProtocolList, string>(isProtocolList, alpnAllowed),
)

/** Options of `MqttModule.forRoot` that are not those of the connection. */
export const extrasSchema = v.object({ name: v.optional(text()), isGlobal: v.optional(flag) })

/** The names of these options. */
export const SOCKET_OPTIONS: readonly string[] = Object.keys(schema.entries)

/** @throws MqttError `INVALID_OPTION` */
export function resolveSocket(
  owner: string,
  options: SocketOptions & TlsFileOptions,
): ResolvedSocket & SocketSecrets {
  const checked = parseOptions(owner, schema, options)
  const { localAddress, proxy, insecureTls, certificateWarningDays } = checked
  return { localAddress, insecureTls, certificateWarningDays, proxy, tlsFiles: v.parse(tlsFiles, options) }
}

const secretText = v.optional(
  v.custom<string | Buffer>(
    value => typeof value === 'string' || Buffer.isBuffer(value),
    'a string or a Buffer',
  ),
)
const credentialsSchema = v.object({
  // A path that contains this name is one whose values are not shown.
  credentials: v.pipe(
    v.custom<object>(isObject, 'an object with the credentials'),
    v.looseObject({
      ...tlsFiles.entries,
      username: v.optional(v.string('a string')),
      password: secretText,
      authenticationData: secretText,
      headers: v.optional(
        v.pipe(
          v.custom<object>(isObject, 'an object'),
          v.record(
            v.string(),
            // Node throws for any other character (RFC 9110, 5.5).
            v.pipe(
              v.string('a string'),
              v.regex(/^[\t\x20-\x7e\x80-\xff]*$/, 'a string without line breaks'),
            ),
          ),
        ),
      ),
    }),
  ),
})

/** Describes what is wrong with the result of `credentials`, without its values; undefined if nothing is. */
export function credentialsProblem(credentials: unknown): string | undefined {
  const problem = problemsOf(credentialsSchema, { credentials })
  return problem && `the function "credentials" returned something that is not valid: ${problem}`
}

/** Describes a TLS option that is set both as a file and as its content. */
export function tlsConflict(
  options: TlsFileOptions & Pick<PassThroughOptions, 'ca' | 'cert' | 'key'>,
): string | undefined {
  for (const name of ['ca', 'cert', 'key'] as const)
    if (options[name] !== undefined && options[`${name}Path`] !== undefined)
      return `"${name}" and "${name}Path" are both set; remove one of them`
  return undefined
}

const PROTOCOLS = ['mqtt:', 'mqtts:', 'ws:', 'wss:', 'mqtt+srv:', 'mqtts+srv:']
const UNIX = 'mqtt+unix:'

/** Whether this is the URL of a broker. */
export function isUrl(value: string): boolean {
  const url = URL.canParse(value) ? new URL(value) : undefined
  if (url?.protocol === UNIX) return url.hostname === '' && url.pathname.length > 1
  return url !== undefined && PROTOCOLS.includes(url.protocol) && url.hostname !== ''
}

export const urlAllowed =
  'a URL with a host, such as "mqtt://localhost:1883" (mqtt, mqtts, ws, wss, mqtt+srv or mqtts+srv), or with the path of a Unix socket (mqtt+unix:///path), a list of URLs, or a function that returns a URL'

/** Returns a validated URL without user, password and query, for a log line or an error. */
export function withoutSecrets(url: string): string {
  const given = url.trim()
  if (/^mqtt\+unix:/i.test(given)) return given.replace(/[?#].*$/s, '')
  return given.replace(/^([a-z0-9+]+:)[/\\]*(?:[^/?#]*@)?([^?#]*).*$/is, '$1//$2')
}

/** Whether connections to this URL use TLS. */
const isTls = (url: string): boolean => /^(mqtts|wss|mqtts\+srv):/i.test(url.trim())

const TLS_OPTIONS = ['ca', 'caPath', 'cert', 'certPath', 'key', 'keyPath'] as const

/**
 * Describes options that have no effect on connections to these URLs.
 * @param urls empty if they are not known
 */
export function uselessTls(
  urls: readonly string[],
  options: TlsFileOptions & Pick<PassThroughOptions, 'ca' | 'cert' | 'key'>,
): string | undefined {
  if (urls.length === 0 || urls.some(isTls)) return undefined
  const name = TLS_OPTIONS.find(option => options[option] !== undefined)
  if (name === undefined) return undefined
  return `"${name}" has no effect, because "url" does not use TLS; use mqtts:// or wss://, or remove "${name}"`
}

const MOST_URLS = 1_000

/** Describes too many URLs, and options of the socket that exclude each other. */
export function socketConflict({
  proxy,
  wsOptions,
  url,
}: SocketOptions & Pick<PassThroughOptions, 'wsOptions'> & { readonly url?: unknown }): string | undefined {
  if (Array.isArray(url) && url.length > MOST_URLS)
    return `"url" must be a list of at most ${MOST_URLS} URLs, but has ${url.length}`
  if (wsOptions !== undefined && 'rejectUnauthorized' in wsOptions)
    return '"wsOptions.rejectUnauthorized" cannot be set; use "insecureTls"'
  if (proxy === undefined) return undefined
  if (/^socks4a?:/i.test(proxy) && URL.canParse(proxy) && new URL(proxy).password !== '')
    return '"proxy" has a password, but SOCKS 4 has none; remove the password, or use socks5:// or socks5h://'
  const own = ['agent', 'createConnection'].find(name => wsOptions !== undefined && name in wsOptions)
  if (own !== undefined) return `"proxy" and "wsOptions.${own}" are both set; remove one of them`
  if ([url].flat().some(one => typeof one === 'string' && one.startsWith(UNIX)))
    return '"proxy" cannot be used with a Unix socket; remove it, or use another "url"'
  return undefined
}
