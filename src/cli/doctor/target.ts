import { once } from 'node:events'
import { connect as connectTcp, type Socket } from 'node:net'
import { Duplex } from 'node:stream'
import {
  type ConnectionOptions,
  connect as connectTls,
  type DetailedPeerCertificate,
  type TLSSocket,
} from 'node:tls'
import { Endpoints } from '../../client/connection/endpoints.js'
import { describeCause } from '../../core/errors.js'
import { resolveOptions } from '../../options/option-checks.js'
import type { MqttModuleOptions } from '../../options/options.js'
import { withoutSecrets } from '../../options/pass-through.js'
import type { TlsObserved } from './observations.js'

/** The options of this package that say where and how to connect. */
export type TargetOptions = Pick<
  MqttModuleOptions,
  'username' | 'password' | 'caPath' | 'certPath' | 'keyPath' | 'passphrase' | 'servername'
> & { readonly url: string }

/** Why there is no connection, by the part that failed. */
export class NoConnection extends Error {
  constructor(
    readonly kind: 'name' | 'unreachable' | 'refused' | 'tls' | 'protocol' | 'credentials',
    message: string,
    readonly tls?: TlsObserved,
  ) {
    super(message)
  }
}

const PORTS: Readonly<Record<string, number>> = { 'mqtt:': 1883, 'mqtts:': 8883, 'ws:': 80, 'wss:': 443 }
const HINTS: Readonly<Record<string, readonly [NoConnection['kind'], string]>> = {
  ENOTFOUND: ['name', 'the host name does not exist; check the URL and the DNS of this machine'],
  EAI_AGAIN: ['name', 'the host name could not be looked up; check the DNS of this machine'],
  ECONNREFUSED: [
    'refused',
    'nothing listens on that port; check that the broker runs, the port, and the address it listens on',
  ],
  ECONNRESET: ['protocol', 'the peer closed the connection; check that the port expects this scheme'],
  EHOSTUNREACH: ['unreachable', 'there is no route to the host'],
  ENETUNREACH: ['unreachable', 'there is no route to the network'],
  ETIMEDOUT: ['unreachable', 'the host does not respond; check the address and the firewalls on the way'],
  ERR_SSL_WRONG_VERSION_NUMBER: ['tls', 'the port does not use TLS; use mqtt:// or ws://, or another port'],
  ERR_SSL_PACKET_LENGTH_TOO_LONG: ['tls', 'the port does not use TLS; use mqtt:// or ws://, or another port'],
}

const TLS_HINTS: Readonly<Record<string, string>> = {
  CERT_HAS_EXPIRED: 'renew the certificate of the broker',
  CERT_NOT_YET_VALID: 'check the clock of this machine',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'set "caPath" to the certificate itself (--ca)',
  SELF_SIGNED_CERT_IN_CHAIN: 'set "caPath" to the certificate of this authority (--ca)',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 'set "caPath" to the certificate of the authority (--ca)',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    'set "caPath" to the certificate of the authority (--ca), or let the broker send the intermediate certificates',
  ERR_TLS_CERT_ALTNAME_INVALID: 'use a host name of the certificate in the URL, or set "servername"',
}

/** The address of a broker, and the streams to it. */
export class Target {
  private constructor(
    /** The URL without user, password and query. */
    readonly name: string,
    private readonly url: URL,
    private readonly tlsOptions: ConnectionOptions,
    readonly username: string | undefined,
    readonly password: Buffer | undefined,
  ) {}

  /** Validates the options, resolves SRV records, and reads the TLS files. @throws MqttError, NoConnection */
  static async of({ url: given, ...others }: TargetOptions): Promise<Target> {
    const options = resolveOptions({ url: given, ...others }, 'doctor')
    const name = withoutSecrets(given)
    let endpoint: Awaited<ReturnType<Endpoints['next']>>
    try {
      endpoint = await new Endpoints(options).next(0, undefined)
    } catch (cause) {
      throw new NoConnection('name', `${name}: ${describeCause(cause)}`)
    }
    const url = new URL(endpoint.url ?? given)
    const { ca, cert, key, passphrase } = endpoint.credentials
    const username = others.username ?? (decodeURIComponent(url.username) || undefined)
    const password = others.password ?? (decodeURIComponent(url.password) || undefined)
    return new Target(
      endpoint.name,
      url,
      definedOnly({ ca, cert, key, passphrase, servername: others.servername }),
      username,
      password === undefined ? undefined : Buffer.from(password),
    )
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
    const socket = await this.opened(this.tlsSocket({ rejectUnauthorized: false }), 'secureConnect', waitMs)
    const observed = observedOf(socket)
    socket.destroy()
    const { failure } = observed
    if (failure === undefined) return observed
    const hint = TLS_HINTS[failure] ?? 'check the certificate of the broker and "caPath" (--ca)'
    throw new NoConnection('tls', `${this.name}: ${describeTlsFailure(observed)}; ${hint}`, observed)
  }

  /** Opens a stream for MQTT. @throws NoConnection */
  async open(waitMs: number): Promise<Duplex> {
    const { protocol } = this.url
    if (protocol === 'ws:' || protocol === 'wss:') return this.openWebSocket(waitMs)
    const stream = this.isTls
      ? await this.opened(this.tlsSocket({}), 'secureConnect', waitMs)
      : await this.opened(connectTcp(this.address), 'connect', waitMs)
    stream.setNoDelay(true)
    return stream
  }

  private get address(): { readonly host: string; readonly port: number } {
    const { hostname, port, protocol } = this.url
    return { host: hostname.replace(/^\[|\]$/g, ''), port: Number(port) || (PORTS[protocol] ?? 1883) }
  }

  private tlsSocket(options: ConnectionOptions): TLSSocket {
    const { host, port } = this.address
    const isName = !/^[\d.]+$|:/.test(host)
    return connectTls({ host, port, ...(isName ? { servername: host } : {}), ...this.tlsOptions, ...options })
  }

  private async opened<S extends Socket>(socket: S, event: string, waitMs: number): Promise<S> {
    socket.on('error', () => {})
    const timer = setTimeout(
      () =>
        socket.destroy(Object.assign(new Error(`no connection within ${waitMs} ms`), { code: 'ETIMEDOUT' })),
      waitMs,
    )
    try {
      await once(socket, event)
      return socket
    } catch (cause) {
      throw this.failed(cause)
    } finally {
      clearTimeout(timer)
    }
  }

  private async openWebSocket(waitMs: number): Promise<Duplex> {
    if (typeof WebSocket === 'undefined')
      throw new NoConnection(
        'protocol',
        `${this.name}: WebSocket needs Node 22 or later; or start with NODE_OPTIONS=--experimental-websocket`,
      )
    const bare = new URL(this.url)
    bare.username = ''
    bare.password = ''
    const socket = new WebSocket(bare, 'mqtt')
    socket.binaryType = 'arraybuffer'
    const opened = once(socket, 'open')
    const timer = setTimeout(() => socket.dispatchEvent(new Event('error')), waitMs)
    try {
      await opened
      return webSocketStream(socket)
    } catch {
      socket.close()
      throw new NoConnection(
        'protocol',
        `${this.name}: the WebSocket was not opened; check the path (often /mqtt), the port, and that the broker accepts the subprotocol "mqtt"`,
      )
    } finally {
      clearTimeout(timer)
    }
  }

  private failed(cause: unknown): NoConnection {
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : ''
    const [kind, hint] = HINTS[code] ?? [code.startsWith('ERR_SSL') ? 'tls' : 'unreachable', 'check the URL']
    return new NoConnection(kind, `${this.name}: ${describeCause(cause)}: ${hint}`)
  }
}

function definedOnly(options: Readonly<Record<string, unknown>>): ConnectionOptions {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined))
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

function webSocketStream(socket: WebSocket): Duplex {
  const stream = new Duplex({
    read: () => {},
    write: (chunk: Buffer, _encoding, done) => {
      socket.send(new Uint8Array(chunk))
      done()
    },
    final: done => {
      socket.close()
      done()
    },
    destroy: (error, done) => {
      socket.close()
      done(error)
    },
  })
  socket.addEventListener('message', ({ data }) => {
    if (data instanceof ArrayBuffer) stream.push(Buffer.from(data))
  })
  socket.addEventListener('close', () => stream.destroy())
  socket.addEventListener('error', () => stream.destroy())
  return stream
}
