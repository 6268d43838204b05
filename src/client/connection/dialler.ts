import { type EventEmitter, once } from 'node:events'
import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { type ConnectionOptions, TLSSocket } from 'node:tls'
import { type IClientOptions, MqttClient, connect as mqttConnect } from 'mqtt'
import type { ConnectedSession, ProtocolVersion } from '../../core/connection/connection-state.js'
import { ExpiryWarnings } from '../../core/connection/tls-rules.js'
import type { TlsFileOptions } from '../../options/options.js'
import type { ResolvedOptions } from '../../options/resolved-options.js'
import { Endpoints } from './endpoints.js'
import { type Dialler, type Endpoint, limited } from './link.js'
import { ClientLink, ignore } from './mqtt-link.js'
import {
  type Address,
  addressOf,
  certificatesOf,
  onWebSocket,
  openTcp,
  openTls,
  openUnix,
  refuseTextFrames,
  type SocketSettings,
} from './sockets.js'
import { Unreleased, UnreleasedStore } from './unreleased.js'

/** Connects with `mqtt`. Each attempt uses a new client that stores nothing and does not retry. */
export function createDialler(options: ResolvedOptions, endpoints = new Endpoints(options)): Dialler {
  const unreleased = new Unreleased()
  const expiry = new ExpiryWarnings(options.certificateWarningDays)
  const { maxPacketBytes } = options.inbound
  return {
    unreleased,
    locate: (...where) => endpoints.next(...where),
    dial: (endpoint, version, events) => {
      // The debug formatting of `mqtt` takes a sixth of its time.
      const settings = { ...clientOptions(options, endpoint, version), log: ignore }
      refuseTextFrames(settings, cause => link.rejected(cause))
      const opened = (socket: TLSSocket): TLSSocket => {
        watchExpiry(socket, settings.cert, expiry, events.warned)
        return socket
      }
      const client = openClient(options, endpoint, settings, opened)
      const connected = (session: ConnectedSession): void => {
        endpoints.keep()
        if (!session.sessionPresent) unreleased.clear()
        events.connected(limited(session, options.brokerLimits))
      }
      const { name, authentication } = endpoint
      // Without the URL and the credentials, which the link must not keep.
      const peer = { name, authentication }
      const link = new ClientLink(client, version, peer, { ...events, connected }, maxPacketBytes)
      client.incomingStore = new UnreleasedStore(unreleased, done => link.stored(done))
      return link
    },
  }
}

/** Opens the stream of an attempt, for a program that sends every packet itself. Resolves when bytes can be sent. */
export async function openStream(
  options: ResolvedOptions,
  endpoint: Endpoint,
  signal: AbortSignal,
): Promise<Duplex> {
  const settings = { ...clientOptions(options, endpoint, 5), log: ignore }
  let webSocket: EventEmitter | undefined
  onWebSocket(settings, socket => {
    webSocket = socket
  })
  const client = openClient(options, endpoint, settings, socket => socket)
  // Seam: only `mqtt` can open its WebSocket, and the function that does so is private.
  const stream = (Reflect.get(client, 'streamBuilder') as (client: MqttClient) => Duplex)(client)
  stream.on('error', ignore)
  try {
    if (webSocket !== undefined) await once(webSocket, 'open', { signal })
    else if (stream instanceof TLSSocket) await once(stream, 'secureConnect', { signal })
    else if (stream instanceof Socket && stream.connecting) await once(stream, 'connect', { signal })
  } catch (cause) {
    stream.destroy()
    throw cause
  }
  if (stream instanceof Socket) stream.setNoDelay(true)
  return stream
}

/** Opens a TLS connection to any broker, so that a certificate that is not valid can be described. Nothing may be sent. */
export async function openUnverified(
  options: ResolvedOptions,
  endpoint: Endpoint,
  signal: AbortSignal,
): Promise<TLSSocket> {
  const { url = '', tunnel } = endpoint
  const tls = { ...tlsOptions(clientOptions(options, endpoint, 5)), rejectUnauthorized: false }
  const how = { localAddress: options.localAddress, tunnel: tunnel?.socket }
  const socket = openTls(addressOf(url), how, tls)
  socket.on('error', ignore)
  try {
    await once(socket, 'secureConnect', { signal })
    return socket
  } catch (cause) {
    socket.destroy()
    throw cause
  }
}

const DAY_MS = 86_400_000

type AttemptOptions = IClientOptions & Pick<TlsFileOptions, 'passphrase'>

/** Checks the certificates when the connection is established, and every day while it lasts. */
function watchExpiry(
  socket: TLSSocket,
  own: IClientOptions['cert'],
  expiry: ExpiryWarnings,
  warn: (text: string) => void,
): void {
  socket.once('secureConnect', () => {
    const certificates = certificatesOf(socket, own)
    const check = (): void => {
      for (const text of expiry.due(certificates, Date.now())) warn(text)
    }
    const timer = setInterval(check, DAY_MS).unref()
    socket.once('close', () => clearInterval(timer))
    check()
  })
}

function openClient(
  options: ResolvedOptions,
  { url = '', tunnel }: Endpoint,
  settings: AttemptOptions,
  opened: (socket: TLSSocket) => TLSSocket,
): MqttClient {
  const { createStream, localAddress } = options
  if (createStream !== undefined) return new MqttClient(() => createStream(), settings)
  const how = { localAddress, tunnel: tunnel?.socket }
  switch (new URL(url).protocol) {
    case 'mqtt+unix:':
      return new MqttClient(() => openUnix(url), settings)
    case 'mqtt:':
      return new MqttClient(() => openTcp(addressOf(url), how), settings)
    case 'mqtts:':
      return new MqttClient(() => opened(openTls(addressOf(url), how, tlsOptions(settings))), settings)
    default:
      return openWebSocket(url, how, settings, opened)
  }
}

/** With `wsOptions.agent` or `wsOptions.createConnection` the application opens the socket. */
function openWebSocket(
  url: string,
  how: SocketSettings,
  settings: AttemptOptions,
  opened: (socket: TLSSocket) => TLSSocket,
): MqttClient {
  const { protocol, hostname } = new URL(url)
  const tls = protocol === 'wss:' ? tlsOptions(settings) : undefined
  const createConnection = (given: unknown): Socket => {
    // Seam: `ws` passes the options of its request, whose host and port are those of the URL that it connects to.
    const request = given as Address & ConnectionOptions
    if (tls === undefined) return openTcp(request, how)
    return opened(openTls(request, how, { ...tls, ...request, rejectUnauthorized: tls.rejectUnauthorized }))
  }
  const { wsOptions = {} } = settings
  const isOwn = 'agent' in wsOptions || 'createConnection' in wsOptions
  // `mqtt` turns "ws" into "wss" if there is a client certificate.
  const { cert, key, ...plain } = settings
  return mqttConnect(withoutUser(url), {
    ...(tls === undefined ? plain : settings),
    // `mqtt` drops the brackets of an IPv6 address.
    hostname,
    wsOptions: Object.assign({}, wsOptions, isOwn ? {} : { createConnection }),
  })
}

/** The options of an attempt that concern TLS. */
function tlsOptions(settings: AttemptOptions): ConnectionOptions & { rejectUnauthorized: boolean } {
  const { ca, cert, key, passphrase, servername, ALPNProtocols, rejectUnauthorized = true } = settings
  const given = Object.entries({ ca, cert, key, passphrase, servername, ALPNProtocols })
  return { ...Object.fromEntries(given.filter(([, value]) => value !== undefined)), rejectUnauthorized }
}

/** Returns the options of an `mqtt` client that serves one attempt. */
export function clientOptions(
  options: ResolvedOptions,
  { credentials, url, authentication, tunnel }: Endpoint,
  protocolVersion: ProtocolVersion,
): AttemptOptions {
  const { inbound } = options
  const { passThrough } = options.secrets.reveal()
  const { headers, ...secrets } = credentials
  const settings: AttemptOptions = {
    ...userOf(url),
    ...passThrough,
    ...secrets,
    clean: options.clean,
    clientId: options.clientId,
    protocolVersion,
    rejectUnauthorized: !options.insecureTls,
    connectTimeout: Math.max(1, options.connectTimeoutMs - (tunnel?.tookMs ?? 0)),
    reconnectPeriod: 0,
    manualConnect: true,
    resubscribe: false,
    reschedulePings: false,
    queueQoSZero: false,
  }
  delete settings.properties
  if (protocolVersion === 5) {
    const { maximumPacketSize = inbound.maxPacketBytes } = passThrough.properties ?? {}
    // `mqtt` sends no password without a user name.
    if (settings.password !== undefined) settings.username ??= ''
    settings.properties = {
      ...passThrough.properties,
      ...authentication?.connectProperties,
      receiveMaximum: inbound.maxInFlight,
      maximumPacketSize: Math.min(maximumPacketSize, inbound.maxPacketBytes),
    }
  }
  // Always a copy: `mqtt` writes the TLS files of an attempt into it, and they would override those of the next attempt.
  const { wsOptions } = passThrough
  if (headers !== undefined)
    settings.wsOptions = { ...wsOptions, headers: { ...headersOf(wsOptions), ...headers } }
  else if (wsOptions !== undefined) settings.wsOptions = { ...wsOptions }
  return settings
}

function headersOf(wsOptions: IClientOptions['wsOptions']): object {
  return wsOptions !== undefined && 'headers' in wsOptions ? { ...wsOptions.headers } : {}
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
