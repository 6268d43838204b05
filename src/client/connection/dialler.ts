import { resolveSrv } from 'node:dns/promises'
import { readFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { createSecureContext } from 'node:tls'
import { type IClientOptions, MqttClient, connect as mqttConnect } from 'mqtt'
import type { ConnectedSession, ProtocolVersion } from '../../core/connection/connection-state.js'
import { describeCause } from '../../core/errors.js'
import { printable } from '../../core/log-lines.js'
import { withoutSecrets } from '../../options/option-checks.js'
import type { MqttCredentials } from '../../options/options.js'
import { type DialSecrets, type ResolvedOptions, tlsConflict } from '../../options/resolved-options.js'
import { LinkAuthentication, requestCredentials } from './authentication.js'
import { type AttemptCredentials, type Dialler, type Endpoint, limited } from './link.js'
import { ClientLink, ignore } from './mqtt-link.js'
import { refuseTextFrames } from './packet-reader.js'
import { Unreleased, UnreleasedStore } from './unreleased.js'

/** One DNS SRV record (RFC 2782). */
export interface SrvRecord {
  readonly name: string
  readonly port: number
  readonly priority: number
  readonly weight: number
}

export type SrvResolver = (service: string) => Promise<readonly SrvRecord[]>

const SERVICES: Readonly<Record<string, readonly [service: string, protocol: string]>> = {
  'mqtt+srv:': ['_mqtt._tcp', 'mqtt'],
  'mqtts+srv:': ['_secure-mqtt._tcp', 'mqtts'],
}

/** Finds the address for an attempt: looks up SRV records and requests the credentials. */
export class Endpoints {
  /** Index of the next record of each SRV name. It changes after each failed attempt. */
  private readonly turns = new Map<string, number>()
  /** Address and credentials of the last attempt. */
  private last:
    | { readonly service?: string; readonly turn: number; readonly protocolVersion: ProtocolVersion }
    | undefined

  constructor(
    private readonly options: ResolvedOptions,
    private readonly resolve: SrvResolver = resolveSrv,
  ) {}

  async next(
    target: number,
    reference: string | undefined,
    protocolVersion: ProtocolVersion = 5,
    prepared?: MqttCredentials,
  ): Promise<Endpoint> {
    const settings = await settingsOf(this.options, prepared)
    if (this.options.createStream !== undefined) {
      return { url: undefined, name: 'the stream from createStream()', ...settings }
    }
    const home = this.options.secrets.reveal().urls[target] ?? ''
    const url = await this.locate(
      reference === undefined ? home : referenceUrl(home, reference),
      protocolVersion,
    )
    return { url, name: withoutSecrets(url), ...settings }
  }

  /** The last endpoint works, so it is tried first next time. */
  keep(): void {
    if (this.last?.service !== undefined) this.turns.set(this.last.service, this.last.turn)
  }

  private async locate(url: string, protocolVersion: ProtocolVersion): Promise<string> {
    const before = this.last
    this.last = { turn: 0, protocolVersion }
    const { protocol, hostname } = new URL(url)
    const service = SERVICES[protocol]
    if (service === undefined) return url
    const [prefix, plain] = service
    const name = `${prefix}.${hostname}`
    const records = inOrder(await this.resolve(name))
    // If a record has just refused MQTT 5, the same record is tried with MQTT 3.1.1.
    const isSameAgain = before?.service === name && protocolVersion < before.protocolVersion
    const turn = (isSameAgain ? before.turn : (this.turns.get(name) ?? 0)) % records.length
    const record = records[turn]
    if (record === undefined) throw new Error(`there is no SRV record ${name}`)
    this.turns.set(name, turn + 1)
    this.last = { service: name, turn, protocolVersion }
    return `${plain}://${userInfoOf(url)}${hostOf(record.name, record.port)}`
  }
}

/** Requests the credentials, and begins the enhanced authentication if there is one. */
async function settingsOf(options: ResolvedOptions, prepared: MqttCredentials | undefined) {
  const given = prepared ?? (await requestCredentials(options))
  const { authenticationData, expiresAtMs, ...others } = given
  const credentials = await readTlsFiles(options.secrets.reveal(), others)
  const authentication =
    options.authentication && (await LinkAuthentication.start(options.authentication, given))
  return { credentials, authentication, expiresAtMs }
}

/** User and password of a URL as written, including the "@". A user without a password has no ":". */
function userInfoOf(url: string): string {
  const { username, password } = new URL(url)
  if (username === '' && password === '') return ''
  return `${username}${password === '' ? '' : `:${password}`}@`
}

/** Checked without the user, because the error of the URL parser quotes its input. */
function hostOf(name: string, port: number): string {
  const host = `${name}:${port}`
  if (!HOST.test(host) || !URL.canParse(`mqtt://${host}`))
    throw new Error(`the SRV record names ${printable(host)}, which is not a host`)
  return host
}

/** Sorts by priority. Within one priority, records with a higher weight come first. */
function inOrder(records: readonly SrvRecord[]): SrvRecord[] {
  return [...records].sort((a, b) => a.priority - b.priority || b.weight - a.weight)
}

/** A Server Reference is a list of hosts with optional ports (MQTT 5, 4.11). The client uses the first one. */
function referenceUrl(home: string, reference: string): string {
  const [first = ''] = reference.trim().split(/\s+/)
  const { protocol, pathname } = new URL(home)
  const scheme = protocol.replace('+srv', '')
  // Checked without the user, because the error of the URL parser quotes its input.
  if (!HOST.test(first) || !URL.canParse(`${scheme}//${first}`))
    throw new Error(`the Server Reference ${printable(reference)} is not a valid host`)
  return `${scheme}//${userInfoOf(home)}${first}${pathname}`
}

/** Rejects characters that would change another part of the URL. */
const HOST = /^[^/\\?#@]+$/

/**
 * Reads the TLS files of the options and the credentials (credentials take precedence), and checks that they are usable:
 * `mqtt` reads no files, and OpenSSL does not name the invalid option.
 * @throws Error that names the option and the file
 */
async function readTlsFiles(
  { tlsFiles, passThrough }: DialSecrets,
  credentials: MqttCredentials,
): Promise<AttemptCredentials> {
  const conflict = tlsConflict(credentials)
  if (conflict !== undefined) throw new Error(`credentials: ${conflict}`)
  const { caPath, certPath, keyPath, passphrase = tlsFiles.passphrase, ...given } = credentials
  // A file in the credentials replaces content in the options, and the reverse.
  const paths = {
    caPath: given.ca === undefined ? (caPath ?? tlsFiles.caPath) : undefined,
    certPath: given.cert === undefined ? (certPath ?? tlsFiles.certPath) : undefined,
    keyPath: given.key === undefined ? (keyPath ?? tlsFiles.keyPath) : undefined,
  }
  const ca = paths.caPath === undefined ? undefined : await readAll('caPath', paths.caPath)
  const cert = paths.certPath === undefined ? undefined : await read('certPath', paths.certPath)
  const key = paths.keyPath === undefined ? undefined : await read('keyPath', paths.keyPath)
  const found: AttemptCredentials = {
    ...given,
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...(passphrase === undefined ? {} : { passphrase }),
  }
  if ((ca ?? cert ?? key ?? passphrase) !== undefined) assertUsable({ ...passThrough, ...found }, paths)
  return found
}

async function readAll(option: string, paths: string | readonly string[]): Promise<Buffer[]> {
  return Promise.all([paths].flat().map(path => read(option, path)))
}

async function read(option: string, path: string): Promise<Buffer> {
  try {
    return await readFile(path)
  } catch (error) {
    throw new Error(`"${option}": the file ${path} cannot be read: ${describeCause(error)}`)
  }
}

function assertUsable(
  { ca, cert, key, passphrase }: AttemptCredentials,
  paths: Omit<DialSecrets['tlsFiles'], 'passphrase'>,
): void {
  try {
    createSecureContext({ ca, cert, key, passphrase })
  } catch (error) {
    const why = describeCause(error)
    const isLocked = /bad decrypt|bad password|passphrase|interrupted|empty password/i.test(why)
    const name = (option: string, path: string | undefined): string =>
      path === undefined ? `"${option}"` : `"${option}Path" (the file ${path})`
    if (isLocked)
      throw new Error(
        `the private key of ${name('key', paths.keyPath)} cannot be decrypted: "passphrase" is ${passphrase === undefined ? 'missing' : 'wrong'}`,
      )
    throw new Error(
      `the TLS files cannot be used: ${why}. Check ${name('cert', paths.certPath)}, ${name('key', paths.keyPath)} and "ca" or "caPath"`,
    )
  }
}

/** Connects with `mqtt`. Each attempt uses a new client that stores nothing and does not retry. */
export function createDialler(options: ResolvedOptions, endpoints = new Endpoints(options)): Dialler {
  const unreleased = new Unreleased()
  const { maxPacketBytes } = options.inbound
  return {
    unreleased,
    locate: (...where) => endpoints.next(...where),
    dial: (endpoint, version, events) => {
      // The debug formatting of `mqtt` takes a sixth of its time.
      const settings = { ...clientOptions(options, endpoint, version), log: ignore }
      refuseTextFrames(settings, cause => link.rejected(cause))
      const client = openClient(options, endpoint, settings)
      const connected = (session: ConnectedSession): void => {
        endpoints.keep()
        if (!session.sessionPresent) unreleased.clear()
        events.connected(limited(session, options.brokerLimits))
      }
      // The link must not hold the URL and the credentials, which `util.inspect` would show.
      const { name, authentication } = endpoint
      const peer = { name, authentication }
      const link = new ClientLink(client, version, peer, { ...events, connected }, maxPacketBytes)
      client.incomingStore = new UnreleasedStore(unreleased, done => link.stored(done))
      return link
    },
  }
}

function openClient(options: ResolvedOptions, { url = '' }: Endpoint, settings: IClientOptions): MqttClient {
  const { createStream, localAddress } = options
  if (createStream !== undefined) return new MqttClient(() => createStream(), settings)
  const { protocol, hostname, port } = new URL(url)
  if (localAddress === undefined || protocol !== 'mqtt:') return mqttConnect(withoutUser(url), settings)
  // The TCP stream builder of `mqtt` does not accept a local address.
  const host = hostname.replace(/^\[|\]$/g, '')
  return new MqttClient(() => connect({ host, port: Number(port || 1883), localAddress }), settings)
}

/** Returns the options of an `mqtt` client that serves one attempt. */
export function clientOptions(
  options: ResolvedOptions,
  { credentials, url, authentication }: Endpoint,
  protocolVersion: ProtocolVersion,
): IClientOptions {
  const { inbound, localAddress } = options
  const { passThrough } = options.secrets.reveal()
  const { headers, ...secrets } = credentials
  const settings: IClientOptions & { localAddress?: string } = {
    ...userOf(url),
    ...passThrough,
    ...secrets,
    clean: options.clean,
    clientId: options.clientId,
    protocolVersion,
    connectTimeout: options.connectTimeoutMs,
    reconnectPeriod: 0,
    manualConnect: true,
    resubscribe: false,
    reschedulePings: false,
    queueQoSZero: false,
  }
  delete settings.properties
  if (protocolVersion === 5) {
    const { maximumPacketSize = inbound.maxPacketBytes } = passThrough.properties ?? {}
    settings.properties = {
      ...passThrough.properties,
      ...authentication?.connectProperties,
      receiveMaximum: inbound.maxInFlight,
      maximumPacketSize: Math.min(maximumPacketSize, inbound.maxPacketBytes),
    }
  }
  if (localAddress !== undefined) settings.localAddress = localAddress
  const ws = {
    ...(headers === undefined ? {} : { headers }),
    ...(localAddress === undefined ? {} : { localAddress }),
  }
  // Always a copy: `mqtt` writes the TLS files of an attempt into it, and they would override those of the next attempt.
  if (Object.keys(ws).length > 0 || passThrough.wsOptions !== undefined)
    settings.wsOptions = { ...passThrough.wsOptions, ...ws }
  return settings
}

/** User and password of a URL. In `mqtt` they would override every option. */
function userOf(url: string | undefined): Pick<IClientOptions, 'username' | 'password'> {
  if (url === undefined) return {}
  const { username, password } = new URL(url)
  return {
    ...(username === '' ? {} : { username: decodeURIComponent(username) }),
    ...(password === '' ? {} : { password: decodeURIComponent(password) }),
  }
}

/** The URL to connect to, without user and password, which are passed separately. */
function withoutUser(url: string): string {
  const bare = new URL(url)
  bare.username = ''
  bare.password = ''
  return bare.href
}
