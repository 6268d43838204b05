import { resolveSrv } from 'node:dns/promises'
import { readFile } from 'node:fs/promises'
import { createSecureContext } from 'node:tls'
import type { ProtocolVersion } from '../../core/connection/connection-state.js'
import { nextSrvRecord, type SrvRecord, srvKey } from '../../core/connection/reconnect-rules.js'
import { describeCause } from '../../core/errors.js'
import { printable } from '../../core/log-lines.js'
import type { MqttCredentials } from '../../options/options.js'
import { isUrl, tlsConflict, uselessTls, withoutSecrets } from '../../options/pass-through.js'
import type { DialSecrets, ResolvedOptions } from '../../options/resolved-options.js'
import { LinkAuthentication, requestCredentials } from './authentication.js'
import type { AttemptCredentials, Endpoint } from './link.js'
import { addressOf, openTunnel } from './sockets.js'

export type SrvResolver = (service: string) => Promise<readonly SrvRecord[]>

const SERVICES: Readonly<Record<string, readonly [service: string, protocol: string]>> = {
  'mqtt+srv:': ['_mqtt._tcp', 'mqtt'],
  'mqtts+srv:': ['_secure-mqtt._tcp', 'mqtts'],
}

/** Most names, and most records of one name, that are remembered. Both may be new ones for each attempt. */
const MOST_REMEMBERED = 1_000

/** The SRV records of one name that have been tried. */
interface SrvRound {
  readonly tried: Set<string>
  /** The record that worked last is tried first. */
  preferred: string | undefined
}

/** Finds the address for an attempt: looks up SRV records, requests the credentials and connects through the proxy. */
export class Endpoints {
  private readonly rounds = new Map<string, SrvRound>()
  /** Address and credentials of the last attempt. */
  private last:
    | { readonly service?: string; readonly record?: string; readonly protocolVersion: ProtocolVersion }
    | undefined

  constructor(
    private readonly options: ResolvedOptions,
    private readonly resolve: SrvResolver = resolveSrv,
    private readonly random: () => number = Math.random,
  ) {}

  async next(
    target: number,
    reference: string | undefined,
    protocolVersion: ProtocolVersion = 5,
    prepared?: MqttCredentials,
    signal?: AbortSignal,
  ): Promise<Endpoint> {
    const secrets = this.options.secrets.reveal()
    const settings = await settingsOf(this.options, prepared)
    if (this.options.createStream !== undefined) {
      return { url: undefined, name: 'the stream from createStream()', ...settings }
    }
    const home =
      secrets.createUrl === undefined ? (secrets.urls[target] ?? '') : await created(secrets.createUrl)
    const url = await this.locate(
      reference === undefined ? home : referenceUrl(home, reference),
      protocolVersion,
    )
    const endpoint = { url, name: withoutSecrets(url), ...settings }
    const { proxy } = secrets
    if (proxy === undefined) return endpoint
    const startedMs = performance.now()
    const { localAddress } = this.options
    const socket = await openTunnel(addressOf(url), { proxy, localAddress, signal })
    return { ...endpoint, tunnel: { socket, tookMs: performance.now() - startedMs } }
  }

  /** The last endpoint works, so it is tried first next time. */
  keep(): void {
    if (this.last?.service === undefined) return
    this.rounds.set(this.last.service, { tried: new Set(), preferred: this.last.record })
  }

  private async locate(url: string, protocolVersion: ProtocolVersion): Promise<string> {
    const before = this.last
    this.last = { protocolVersion }
    const { protocol, hostname } = new URL(url)
    const service = SERVICES[protocol]
    if (service === undefined) return url
    const [prefix, plain] = service
    const name = `${prefix}.${hostname}`
    // If a record has just refused MQTT 5, the same record is tried with MQTT 3.1.1.
    const isSameAgain = before?.service === name && protocolVersion < before.protocolVersion
    const record = this.choose(name, await this.resolve(name), isSameAgain ? before.record : undefined)
    this.last = { service: name, record: srvKey(record), protocolVersion }
    return `${plain}://${userInfoOf(url)}${hostOf(record.name, record.port)}`
  }

  /** @param again the record of the last attempt, if it has to be tried once more */
  private choose(name: string, records: readonly SrvRecord[], again: string | undefined): SrvRecord {
    const round = this.rounds.get(name) ?? { tried: new Set(), preferred: undefined }
    this.rounds.set(name, round)
    this.forget(name, round, records)
    const wanted = again ?? round.preferred
    round.preferred = undefined
    const first = records.find(record => srvKey(record) === wanted)
    const draw = (): SrvRecord | undefined => nextSrvRecord(records, round.tried, this.random())
    let record = first ?? draw()
    if (record === undefined) {
      round.tried.clear()
      record = draw()
    }
    if (record === undefined) throw new Error(`there is no SRV record ${name}`)
    round.tried.add(srvKey(record))
    // RFC 2782: the service is decidedly not available at this domain.
    if (record.name === '' || record.name === '.')
      throw new Error(`the SRV record ${name} says that this domain has no such service`)
    return record
  }

  /** Keeps what is remembered within its limits. */
  private forget(name: string, { tried }: SrvRound, records: readonly SrvRecord[]): void {
    const [oldest = name] = this.rounds.keys()
    if (this.rounds.size > MOST_REMEMBERED && oldest !== name) this.rounds.delete(oldest)
    if (tried.size < MOST_REMEMBERED) return
    const known = new Set(records.map(srvKey))
    for (const key of tried) if (!known.has(key)) tried.delete(key)
  }
}

/** Requests the credentials, and begins the enhanced authentication if there is one. */
async function settingsOf(options: ResolvedOptions, prepared: MqttCredentials | undefined) {
  const given = prepared ?? (await requestCredentials(options))
  const { authenticationData, expiresAtMs, ...others } = given
  const secrets = options.secrets.reveal()
  const credentials = await readTlsFiles(secrets, others)
  if (options.createStream === undefined) assertReadable({ ...secrets.passThrough, ...others }, credentials)
  const authentication =
    options.authentication && (await LinkAuthentication.start(options.authentication, given))
  return { credentials, authentication, expiresAtMs }
}

/** The URL may be signed, so it must not appear in an error. */
async function created(createUrl: NonNullable<DialSecrets['createUrl']>): Promise<string> {
  const url: unknown = await createUrl()
  if (typeof url === 'string' && isUrl(url)) return url
  throw new Error('the function "url" returned no URL with a host, such as "wss://broker.example/mqtt"')
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

/** Rejects characters that would change another part of the URL, or that the URL parser removes. */
const HOST = /^[^/\\?#@\p{Cc}]+$/u

/**
 * Reads the TLS files of the options and the credentials (credentials take precedence), and checks that they are usable:
 * `mqtt` reads no files, and OpenSSL does not name the invalid option.
 * @throws Error that names the option and the file
 */
async function readTlsFiles(
  { urls, tlsFiles, passThrough }: DialSecrets,
  credentials: MqttCredentials,
): Promise<AttemptCredentials> {
  const conflict = tlsConflict(credentials) ?? uselessTls(urls, credentials)
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
  const files: Buffer[] = []
  for (const path of [paths].flat()) {
    const file = await read(option, path)
    if (!hasCertificates(file))
      throw new Error(`"${option}": the file ${path} contains no complete certificate in PEM format`)
    files.push(file)
  }
  return files
}

const CONTENTS = { ca: 'certificates', cert: 'a certificate', key: 'a private key' } as const

/**
 * Checks certificates and keys that are not in files, because OpenSSL does not name the option.
 * @throws Error that names the option, without its content
 */
function assertReadable(given: Partial<AttemptCredentials>, used: AttemptCredentials): void {
  for (const option of ['ca', 'cert', 'key'] as const) {
    const content = given[option]
    // A file in the credentials replaces it.
    if (content === undefined || (used[option] ?? content) !== content) continue
    try {
      createSecureContext({ [option]: content, passphrase: used.passphrase ?? given.passphrase })
      if (option !== 'ca' || [content].flat().every(hasCertificates)) continue
    } catch (error) {
      if (isLocked(describeCause(error))) throw lockedKey('"key"', used.passphrase ?? given.passphrase)
    }
    throw new Error(`"${option}" must contain ${CONTENTS[option]} in PEM format, but cannot be read`)
  }
}

/** OpenSSL ignores a CA file without certificates, and the rest of one that is cut off. */
function hasCertificates(file: unknown): boolean {
  if (typeof file !== 'string' && !Buffer.isBuffer(file)) return true
  const text = file.toString('latin1')
  const begins = text.match(/-----BEGIN [A-Z0-9 ]*CERTIFICATE-----/g)?.length ?? 0
  return begins > 0 && text.match(/-----END [A-Z0-9 ]*CERTIFICATE-----/g)?.length === begins
}

/** Each read that hangs, such as on a network disk, holds one of the four threads that Node has for files and DNS. */
const reads = new Map<string, Promise<Buffer>>()

async function read(option: string, path: string): Promise<Buffer> {
  const started = reads.get(path) ?? readFile(path).finally(() => reads.delete(path))
  reads.set(path, started)
  try {
    return await started
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
    const name = (option: string, path: string | undefined): string =>
      path === undefined ? `"${option}"` : `"${option}Path" (the file ${path})`
    if (isLocked(why)) throw lockedKey(name('key', paths.keyPath), passphrase)
    throw new Error(
      `the TLS files cannot be used: ${why}. Check ${name('cert', paths.certPath)}, ${name('key', paths.keyPath)} and "ca" or "caPath"`,
    )
  }
}

const isLocked = (why: string): boolean =>
  /bad decrypt|bad password|passphrase|interrupted|empty password/i.test(why)

function lockedKey(name: string, passphrase: unknown): Error {
  const state = passphrase === undefined ? 'missing' : 'wrong'
  return new Error(`the private key of ${name} cannot be decrypted: "passphrase" is ${state}`)
}
