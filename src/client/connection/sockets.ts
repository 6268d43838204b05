import { X509Certificate } from 'node:crypto'
import { lookup } from 'node:dns/promises'
import { type EventEmitter, once } from 'node:events'
import { type ClientRequest, request } from 'node:http'
import { isIP, type Socket, connect as tcpConnect } from 'node:net'
import { type ConnectionOptions, type TLSSocket, connect as tlsConnect } from 'node:tls'
import type { IClientOptions } from 'mqtt'
import type { CertificateDates } from '../../core/connection/tls-rules.js'
import { describeCause, type MqttError } from '../../core/errors.js'
import { withoutSecrets } from '../../options/pass-through.js'
import { type AttemptCredentials, malformed } from './link.js'

/** Host and port of a broker or a proxy. */
export interface Address {
  readonly host: string
  readonly port: number
}

const PORTS: Readonly<Record<string, number>> = {
  'mqtt:': 1883,
  'mqtts:': 8883,
  'ws:': 80,
  'wss:': 443,
  'http:': 80,
  'https:': 443,
}
const SOCKS_PORT = 1080

/** Returns the host without the brackets of an IPv6 address, and the port. */
export function addressOf(url: string): Address {
  const { protocol, hostname, port } = new URL(url)
  const host = hostname.replace(/^\[|\]$/g, '')
  return { host, port: Number(port || (PORTS[protocol] ?? SOCKS_PORT)) }
}

/** How the socket of an attempt is opened. */
export interface SocketSettings {
  readonly localAddress: string | undefined
  /** A socket that a proxy has connected to the broker. */
  readonly tunnel: Socket | undefined
}

const local = ({ localAddress }: Pick<SocketSettings, 'localAddress'>) =>
  localAddress === undefined ? {} : { localAddress }

/** Tries all addresses of the host, the next one while the previous one has not connected (RFC 8305). */
export function openTcp({ host, port }: Address, settings: SocketSettings): Socket {
  return settings.tunnel ?? tcpConnect({ host, port, autoSelectFamily: true, ...local(settings) })
}

export function openUnix(url: string): Socket {
  return tcpConnect({ path: decodeURIComponent(new URL(url).pathname) })
}

/** The name of the server is the host, unless `tls` has a `servername`. An IP address is not sent (RFC 6066, 3). */
export function openTls(
  { host, port }: Address,
  settings: SocketSettings,
  tls: ConnectionOptions,
): TLSSocket {
  const { tunnel } = settings
  return tlsConnect({
    servername: isIP(host) === 0 ? host : '',
    ...tls,
    // The path of a WebSocket would be taken for a Unix socket.
    path: undefined,
    host,
    ...(tunnel === undefined ? { port, autoSelectFamily: true, ...local(settings) } : { socket: tunnel }),
  })
}

/** A certificate chain has fewer. */
const MAX_CHAIN = 10

/** The certificates of an established connection: for the broker, the one of its chain that expires first. */
export function certificatesOf(socket: TLSSocket, own: AttemptCredentials['cert']): CertificateDates[] {
  const chain: X509Certificate[] = []
  for (let next = socket.getPeerX509Certificate(); next !== undefined && chain.length < MAX_CHAIN; ) {
    chain.push(next)
    next = next.issuerCertificate
  }
  const ours = [own].flat()[0]
  const isReadable = typeof ours === 'string' || Buffer.isBuffer(ours)
  return [
    ...firstToExpire('the broker', chain),
    ...firstToExpire('this client', isReadable ? [new X509Certificate(ours)] : []),
  ]
}

function firstToExpire(of: CertificateDates['of'], chain: readonly X509Certificate[]): CertificateDates[] {
  const [first] = chain
    .map(({ subject, validTo }) => ({
      of,
      subject: (subject ?? '').replaceAll('\n', ', '),
      validToMs: Date.parse(validTo),
      lastDay: new Date(validTo).toISOString().slice(0, 10),
    }))
    .sort((a, b) => a.validToMs - b.validToMs)
  return first === undefined ? [] : [first]
}

/** What a tunnel through a proxy is opened with. */
export interface TunnelSettings extends Pick<SocketSettings, 'localAddress'> {
  /** URL of the proxy, with user and password. */
  readonly proxy: string
  /** Gives up when the attempt has ended. */
  readonly signal: AbortSignal | undefined
}

/**
 * Connects to the broker through a proxy.
 * @throws Error that names the proxy, without its user and password
 */
export async function openTunnel(target: Address, settings: TunnelSettings): Promise<Socket> {
  const isHttp = new URL(settings.proxy).protocol.startsWith('http')
  const tunnel = await (isHttp ? httpTunnel(target, settings) : socksTunnel(target, settings))
  // Until the link listens, nobody else would take an error, which would end the process.
  tunnel.on('error', () => {})
  return tunnel
}

const nameOf = (proxy: string): string => `the proxy ${withoutSecrets(proxy)}`

function needsUser(proxy: string, said: string): Error {
  const [what, advice] =
    userOf(proxy) === undefined
      ? ['requires credentials', 'put user and password into "proxy"']
      : ['refused the credentials', 'correct user and password in "proxy"']
  return new Error(`${nameOf(proxy)} ${what} (${said}): ${advice}`)
}

function userOf(proxy: string): { readonly userId: string; readonly password: string } | undefined {
  const { username, password } = new URL(proxy)
  if (username === '' && password === '') return undefined
  return { userId: decodeURIComponent(username), password: decodeURIComponent(password) }
}

const hostPort = ({ host, port }: Address): string => `${isIP(host) === 6 ? `[${host}]` : host}:${port}`

async function proxySocket({ proxy, signal, localAddress }: TunnelSettings): Promise<Socket> {
  // The attempt may have ended while it waited for credentials or an address.
  signal?.throwIfAborted()
  const address = { ...addressOf(proxy), autoSelectFamily: true, ...local({ localAddress }) }
  const isTls = new URL(proxy).protocol === 'https:'
  const servername = isIP(address.host) === 0 ? address.host : ''
  const socket = isTls
    ? tlsConnect({ ...address, servername, ALPNProtocols: ['http/1.1'] })
    : tcpConnect(address)
  signal?.addEventListener('abort', () => socket.destroy(), { once: true })
  try {
    await once(socket, isTls ? 'secureConnect' : 'connect', signal === undefined ? {} : { signal })
  } catch (cause) {
    const hint = isTls && /certificate/i.test(describeCause(cause)) ? PROXY_CERTIFICATE : ''
    throw new Error(`${nameOf(proxy)} cannot be reached: ${describeCause(cause)}${hint}`)
  }
  return socket
}

const PROXY_CERTIFICATE =
  '. Its certificate must be for the host of "proxy", and from an authority that Node knows or that is in the file of NODE_EXTRA_CA_CERTS'

const NEEDS_CREDENTIALS = 407

/** HTTP CONNECT (RFC 9110, 9.3.6). */
async function httpTunnel(target: Address, settings: TunnelSettings): Promise<Socket> {
  const socket = await proxySocket(settings)
  const { proxy } = settings
  const user = userOf(proxy)
  const authority = hostPort(target)
  const basic = Buffer.from(`${user?.userId}:${user?.password}`).toString('base64')
  return new Promise((resolve, reject) => {
    const fail = (error: Error): void => {
      socket.destroy()
      reject(error)
    }
    const asked = request({
      method: 'CONNECT',
      path: authority,
      headers: {
        host: authority,
        ...(user === undefined ? {} : { 'proxy-authorization': `Basic ${basic}` }),
      },
      createConnection: () => socket,
    })
    asked.once('error', cause =>
      fail(new Error(`${nameOf(proxy)} did not connect to ${authority}: ${describeCause(cause)}`)),
    )
    asked.once('connect', ({ statusCode = 0, statusMessage = '' }, _socket, head) => {
      const said = `${statusCode} ${statusMessage}`.trim()
      if (statusCode === NEEDS_CREDENTIALS) return fail(needsUser(proxy, said))
      if (statusCode !== 200)
        return fail(new Error(`${nameOf(proxy)} refused to connect to ${authority}: ${said}`))
      if (head.length > 0) socket.unshift(head)
      resolve(socket)
    })
    asked.end()
  })
}

/** As in curl: with `socks5h` and `socks4a` the proxy looks up the host, with `socks5` and `socks4` this machine. */
const SOCKS: Readonly<Record<string, { readonly type: 4 | 5; readonly isRemote: boolean }>> = {
  'socks4:': { type: 4, isRemote: false },
  'socks4a:': { type: 4, isRemote: true },
  'socks5:': { type: 5, isRemote: false },
  'socks5h:': { type: 5, isRemote: true },
}

/** SOCKS 4 and 5 (RFC 1928, 1929). */
async function socksTunnel(target: Address, settings: TunnelSettings): Promise<Socket> {
  const { proxy } = settings
  const { SocksClient } = await loadSocks()
  const { type, isRemote } = SOCKS[new URL(proxy).protocol] ?? { type: 5, isRemote: true }
  const host =
    isRemote || isIP(target.host) > 0 ? target.host : (await lookup(target.host, type === 4 ? 4 : 0)).address
  const socket = await proxySocket(settings)
  try {
    const { socket: tunnel } = await SocksClient.createConnection({
      command: 'connect',
      proxy: { ...addressOf(proxy), type, ...userOf(proxy) },
      destination: { host, port: target.port },
      existing_socket: socket,
    })
    return tunnel
  } catch (cause) {
    socket.destroy()
    // Not kept as the cause: the error has the options with the password.
    const why = describeCause(cause)
    if (/authentication/i.test(why)) throw needsUser(proxy, why)
    throw new Error(`${nameOf(proxy)} did not connect to ${hostPort(target)}: ${why}`)
  }
}

function loadSocks(): Promise<typeof import('socks')> {
  return import('socks').catch(() => {
    throw new Error('"proxy" needs the package socks for this URL. Install it: npm install socks')
  })
}

/** Calls back with the WebSocket of an attempt. The option `finishRequest` of `ws` gives access to it. */
export function onWebSocket(settings: IClientOptions, created: (socket: EventEmitter) => void): void {
  const finishRequest: unknown = Reflect.get(settings.wsOptions ?? {}, 'finishRequest')
  const finish = (request: ClientRequest, socket: EventEmitter): void => {
    created(socket)
    if (typeof finishRequest === 'function') finishRequest(request, socket)
    else request.end()
  }
  settings.wsOptions = { ...settings.wsOptions, finishRequest: finish }
}

/** `ws` passes on text and binary frames in the same way, but MQTT must use binary ones (MQTT 5, 6.0.0-1). */
export function refuseTextFrames(settings: IClientOptions, refuse: (cause: MqttError) => void): void {
  onWebSocket(settings, socket => {
    socket.on('message', (_content: unknown, isBinary: boolean) => {
      if (!isBinary) refuse(malformed('a text frame'))
    })
  })
}
