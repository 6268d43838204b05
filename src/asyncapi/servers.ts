import type { ResolvedOptions } from '../options/resolved-options.js'
import { type AsyncApiReference, type AsyncApiServer, type Names, reference } from './document.js'

/** An address of a broker for the readers of a document. */
export interface AsyncApiServerOptions {
  /** A `mqtt`, `mqtts`, `ws` or `wss` URL. A user, password and query are removed. */
  readonly url: string
  /** Name of the connection, if the application has several. @default the connection without a name */
  readonly connection?: string
  readonly description?: string
}

/** The security schemes of a document, by their names. */
export const SECURITY_SCHEMES = {
  userPassword: { type: 'userPassword', description: 'User Name and Password of CONNECT.' },
  X509: { type: 'X509', description: 'A client certificate for TLS.' },
} as const

type SchemeName = keyof typeof SECURITY_SCHEMES

/** Name of a server of a connection. */
const serverName = (connection: string | undefined): string => connection ?? 'broker'

/**
 * The servers of one connection, by their names.
 * @param options undefined if the options of the connection are not known
 * @param overrides addresses in place of those in the options
 */
export function serversOf(
  connection: string | undefined,
  options: ResolvedOptions | undefined,
  overrides: readonly AsyncApiServerOptions[],
  names: Names,
): [string, AsyncApiServer][] {
  const urls: readonly { url: string; description?: string }[] =
    overrides.length > 0 ? overrides : (options?.secrets.reveal().urls ?? []).map(url => ({ url }))
  const security = options === undefined ? [] : securityOf(options, urls)
  return urls.map(({ url, description }) => [
    names.unique(serverName(connection), 'broker'),
    {
      ...addressOf(url),
      ...(options === undefined ? {} : { protocolVersion: options.protocolVersion === 4 ? '3.1.1' : '5' }),
      ...descriptionOf(url, description),
      ...(security.length === 0 ? {} : { security }),
      ...(options === undefined ? {} : { bindings: { mqtt: bindingOf(options) } }),
    },
  ])
}

const PROTOCOLS: Readonly<Record<string, string>> = {
  'mqtt:': 'mqtt',
  'mqtt+srv:': 'mqtt',
  'mqtt+unix:': 'mqtt',
  'mqtts:': 'secure-mqtt',
  'mqtts+srv:': 'secure-mqtt',
}

function addressOf(address: string): Pick<AsyncApiServer, 'host' | 'pathname' | 'protocol'> {
  const { host, pathname, protocol } = new URL(address)
  return {
    host: host || 'localhost',
    ...(pathname === '' || pathname === '/' ? {} : { pathname }),
    protocol: PROTOCOLS[protocol] ?? protocol.slice(0, -1),
  }
}

function descriptionOf(url: string, given: string | undefined): { description?: string } {
  if (given !== undefined) return { description: given }
  if (/^mqtts?\+srv:/i.test(url)) return { description: 'The DNS SRV records of this name list the brokers.' }
  return /^wss?:/i.test(url) ? { description: 'MQTT over WebSocket.' } : {}
}

function securityOf(
  { secrets, credentials }: ResolvedOptions,
  urls: readonly { readonly url: string }[],
): AsyncApiReference[] {
  const { passThrough, tlsFiles } = secrets.reveal()
  const hasUser = passThrough.username !== undefined || passThrough.password !== undefined
  const isInUrl = urls.some(({ url }) => new URL(url).username !== '')
  const schemes: SchemeName[] = []
  // What `credentials` returns is not known before an attempt to connect.
  if (hasUser || isInUrl || credentials !== undefined) schemes.push('userPassword')
  if (passThrough.cert !== undefined || tlsFiles.certPath !== undefined) schemes.push('X509')
  return schemes.map(name => reference('components', 'securitySchemes', name))
}

/** Without the Client Identifier and the payload of the will, which belong to one instance of the application. */
function bindingOf(options: ResolvedOptions): Readonly<Record<string, unknown>> {
  const { passThrough } = options.secrets.reveal()
  const { keepalive, properties, will } = passThrough
  return {
    cleanSession: options.clean,
    ...(keepalive === undefined ? {} : { keepAlive: keepalive }),
    ...(properties?.sessionExpiryInterval === undefined
      ? {}
      : { sessionExpiryInterval: properties.sessionExpiryInterval }),
    maximumPacketSize: options.inbound.maxPacketBytes,
    ...(will === undefined
      ? {}
      : { lastWill: { topic: will.topic, qos: will.qos ?? 0, retain: will.retain ?? false } }),
    bindingVersion: '0.2.0',
  }
}
