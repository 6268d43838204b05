import type { Duplex } from 'node:stream'
import type { DetailedPeerCertificate, TLSSocket } from 'node:tls'
import { openStream, openUnverified } from '../../client/connection/dialler.js'
import { Endpoints } from '../../client/connection/endpoints.js'
import type { Endpoint } from '../../client/connection/link.js'
import { describeCause } from '../../core/errors.js'
import { resolveOptions } from '../../options/option-checks.js'
import type { MqttModuleOptions } from '../../options/options.js'
import { withoutSecrets } from '../../options/pass-through.js'
import type { ResolvedOptions } from '../../options/resolved-options.js'
import type { TlsObserved } from './observations.js'

/** The options of this package that say where and how to connect. */
export type TargetOptions = Pick<
  MqttModuleOptions,
  | 'username'
  | 'password'
  | 'caPath'
  | 'certPath'
  | 'keyPath'
  | 'passphrase'
  | 'servername'
  | 'ALPNProtocols'
  | 'localAddress'
  | 'proxy'
  | 'wsOptions'
> & { readonly url: string; readonly authentication?: AuthenticationData }

/** Enhanced authentication that needs no challenge, such as a token (MQTT 5, 4.12). */
export interface AuthenticationData {
  readonly method: string
  readonly data?: string
}

/** Why there is no connection, by the part that failed. */
export class NoConnection extends Error {
  constructor(
    readonly kind: 'name' | 'unreachable' | 'refused' | 'tls' | 'protocol' | 'credentials' | 'proxy',
    message: string,
    readonly tls?: TlsObserved,
  ) {
    super(message)
  }
}

const HINTS: Readonly<Record<string, readonly [NoConnection['kind'], string]>> = {
  ENOTFOUND: ['name', 'the host name does not exist; check the URL and the DNS of this machine'],
  EAI_AGAIN: ['name', 'the host name could not be looked up; check the DNS of this machine'],
  ECONNREFUSED: [
    'refused',
    'nothing listens on that port; check that the broker runs, the port, and the address it listens on',
  ],
  ECONNRESET: ['protocol', 'the peer closed the connection; check that the port expects this scheme'],
  ENOENT: ['unreachable', 'the socket file does not exist; check the path, and that the broker is running'],
  EACCES: ['unreachable', 'this user may not connect to the socket; check the permissions of the file'],
  EADDRNOTAVAIL: ['unreachable', 'this machine does not have the local address; check --local-address'],
  EHOSTUNREACH: ['unreachable', 'there is no route to the host'],
  ENETUNREACH: ['unreachable', 'there is no route to the network'],
  ETIMEDOUT: ['unreachable', 'the host does not respond; check the address and the firewalls on the way'],
  ERR_SSL_WRONG_VERSION_NUMBER: ['tls', 'the port does not use TLS; use mqtt:// or ws://, or another port'],
  ERR_SSL_PACKET_LENGTH_TOO_LONG: ['tls', 'the port does not use TLS; use mqtt:// or ws://, or another port'],
  ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL: [
    'tls',
    'the broker accepts none of the protocols; check --alpn',
  ],
}

const TLS_HINTS: Readonly<Record<string, string>> = {
  CERT_HAS_EXPIRED: 'renew the certificate of the broker',
  CERT_NOT_YET_VALID: 'check the clock of this machine',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'set "caPath" to the certificate itself (--ca)',
  SELF_SIGNED_CERT_IN_CHAIN: 'set "caPath" to the certificate of this authority (--ca)',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 'set "caPath" to the certificate of the authority (--ca)',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    'set "caPath" to the certificate of the authority (--ca), or let the broker send the intermediate certificates',
  ERR_TLS_CERT_ALTNAME_INVALID:
    'use a host name from the certificate in the URL, or set "servername" (--servername)',
}

/** What is wrong if "caPath" is set. */
const WRONG_CA = 'the file at "caPath" (--ca) does not contain the certificate of this authority'
const TLS_HINTS_WITH_CA: Readonly<Record<string, string>> = {
  ...TLS_HINTS,
  DEPTH_ZERO_SELF_SIGNED_CERT: 'the file at "caPath" (--ca) does not contain this certificate',
  SELF_SIGNED_CERT_IN_CHAIN: WRONG_CA,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: WRONG_CA,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: `${WRONG_CA}, or the broker does not send the intermediate certificates`,
}

/** The address of a broker, and the streams to it. They are opened as the client opens its own. */
export class Target {
  private readonly endpoints: Endpoints

  private constructor(
    /** The URL without user, password and query. */
    readonly name: string,
    private readonly url: URL,
    private readonly options: ResolvedOptions,
    readonly authentication: AuthenticationData | undefined,
    private readonly tlsHints: Readonly<Record<string, string>>,
  ) {
    this.endpoints = new Endpoints(options)
  }

  /** Validates the options, resolves SRV records, and reads the TLS files. @throws MqttError, NoConnection */
  static async of({ authentication, ...given }: TargetOptions): Promise<Target> {
    resolveOptions(given, 'doctor')
    // Only looks up the host, which all connections use. Each of them has its own tunnel through the proxy.
    const { proxy: _proxy, ...direct } = given
    const name = withoutSecrets(given.url)
    try {
      const located = await new Endpoints(resolveOptions(direct, 'doctor')).next(0, undefined)
      const url = located.url ?? given.url
      return new Target(
        located.name,
        new URL(url),
        resolveOptions({ ...given, url }, 'doctor'),
        authentication,
        given.caPath === undefined ? TLS_HINTS : TLS_HINTS_WITH_CA,
      )
    } catch (cause) {
      const kind = /^mqtts?\+srv:/i.test(name) ? 'name' : 'tls'
      throw new NoConnection(kind, `${name}: ${describeCause(cause)}`)
    }
  }

  get username(): string | undefined {
    const username = this.passThrough.username ?? (decodeURIComponent(this.url.username) || undefined)
    // As the client does on MQTT 5: a password is not sent without a user name.
    return username ?? (this.password === undefined ? undefined : '')
  }

  get password(): Buffer | undefined {
    const password = this.passThrough.password ?? (decodeURIComponent(this.url.password) || undefined)
    return password === undefined ? undefined : Buffer.from(password)
  }

  get isTls(): boolean {
    return this.url.protocol === 'mqtts:' || this.url.protocol === 'wss:'
  }

  /**
   * Reads the certificate of the broker without sending anything that is secret.
   * @throws NoConnection if Node would not accept it, or there is no connection
   */
  async inspectTls(waitMs: number): Promise<TlsObserved> {
    // Nothing is written to this socket. All later connections reject a certificate that is not valid.
    const socket = await this.within(waitMs, (endpoint, signal) =>
      openUnverified(this.options, endpoint, signal),
    )
    const observed = observedOf(socket)
    socket.destroy()
    const { failure } = observed
    if (failure === undefined) return observed
    const hint = this.tlsHints[failure] ?? 'check the certificate of the broker and "caPath" (--ca)'
    throw new NoConnection('tls', `${this.name}: ${describeTlsFailure(observed)}; ${hint}`, observed)
  }

  /** Opens a stream for MQTT. @throws NoConnection */
  open(waitMs: number, interrupt?: AbortSignal): Promise<Duplex> {
    const opening = (endpoint: Endpoint, signal: AbortSignal): Promise<Duplex> =>
      openStream(this.options, endpoint, signal)
    return this.within(waitMs, opening, interrupt)
  }

  private get passThrough() {
    return this.options.secrets.reveal().passThrough
  }

  private async within<T>(
    waitMs: number,
    open: (endpoint: Endpoint, signal: AbortSignal) => Promise<T>,
    interrupt?: AbortSignal,
  ): Promise<T> {
    const limit = AbortSignal.timeout(Math.ceil(waitMs))
    const signal = interrupt === undefined ? limit : AbortSignal.any([limit, interrupt])
    let part: 'proxy' | 'broker' = 'proxy'
    try {
      const endpoint = await this.endpoints.next(0, undefined, 5, undefined, signal)
      part = 'broker'
      return await open(endpoint, signal)
    } catch (cause) {
      throw this.failed(
        limit.aborted
          ? Object.assign(new Error(`no connection within ${Math.ceil(waitMs)} ms`), { code: 'ETIMEDOUT' })
          : cause,
        part,
      )
    }
  }

  private failed(cause: unknown, part: 'proxy' | 'broker'): NoConnection {
    const text = describeCause(cause)
    const { proxy } = this.options.secrets.reveal()
    if (part === 'proxy' && proxy !== undefined) {
      const who = `the proxy ${withoutSecrets(proxy)}`
      return new NoConnection(
        'proxy',
        `${this.name}: ${text.includes(who) ? text : `${who}: ${text}`}; check --proxy`,
      )
    }
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : ''
    const isWebSocket = this.url.protocol.startsWith('ws')
    const [kind, hint] = HINTS[code] ?? [
      code.startsWith('ERR_SSL') ? 'tls' : isWebSocket ? 'protocol' : 'unreachable',
      isWebSocket
        ? 'check the path of the URL (often /mqtt), the port, and that the broker accepts the subprotocol "mqtt"'
        : 'check the URL',
    ]
    return new NoConnection(kind, `${this.name}: ${text}: ${hint}`)
  }
}

function observedOf(socket: TLSSocket): TlsObserved {
  const certificate = socket.getPeerCertificate(true)
  const chain = chainOf(certificate)
  const failure = socket.authorizationError
  return {
    protocol: socket.getProtocol() ?? 'unknown',
    cipher: socket.getCipher().name,
    subject: nameOf(certificate.subject),
    issuer: nameOf(certificate.issuer),
    names: certificate.subjectaltname ?? '',
    validToMs: Date.parse(certificate.valid_to),
    chain,
    ...(socket.authorized ? {} : { failure: failureCode(failure) }),
  }
}

/** Node sets a code here, or an error whose code is not in its type. */
function failureCode(failure: unknown): string {
  if (failure instanceof Error) return 'code' in failure ? String(failure.code) : failure.message
  return String(failure)
}

function chainOf(leaf: DetailedPeerCertificate): string[] {
  const names: string[] = []
  for (let next = leaf; next?.subject !== undefined; next = next.issuerCertificate) {
    names.push(nameOf(next.subject))
    if (next.issuerCertificate === next || names.length === 10) break
  }
  return names
}

function nameOf(subject: DetailedPeerCertificate['subject'] | undefined): string {
  const name = subject?.CN ?? subject?.O ?? ''
  return String(name) || 'unnamed'
}

function describeTlsFailure({ failure = '', issuer, names, subject, validToMs }: TlsObserved): string {
  const who = `the certificate of "${subject}", issued by "${issuer}",`
  if (failure === 'CERT_HAS_EXPIRED') return `${who} expired at ${new Date(validToMs).toISOString()}`
  if (failure === 'ERR_TLS_CERT_ALTNAME_INVALID')
    return `${who} is valid for ${names || 'no host name'}, not for the host of the URL`
  return `${who} is not trusted (${failure})`
}
