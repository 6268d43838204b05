import type { IClientOptions } from 'mqtt'
import type { ProtocolVersion } from '../../core/connection/connection-state.js'
import type { ResolvedOptions } from '../../options/resolved-options.js'
import type { Endpoint } from './endpoint.js'

/** The options for a client of `mqtt` that serves one attempt. */
export function clientOptions(
  options: ResolvedOptions,
  { credentials, url }: Endpoint,
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
    resubscribe: false,
    reschedulePings: false,
    queueQoSZero: false,
    // The client's own debug formatting costs a sixth of its time.
    log: () => {},
  }
  delete settings.properties
  if (protocolVersion === 5) {
    const { maximumPacketSize = inbound.maxPacketBytes } = passThrough.properties ?? {}
    settings.properties = {
      ...passThrough.properties,
      receiveMaximum: inbound.maxInFlight,
      maximumPacketSize: Math.min(maximumPacketSize, inbound.maxPacketBytes),
    }
  }
  if (localAddress !== undefined) settings.localAddress = localAddress
  const ws = {
    ...(headers === undefined ? {} : { headers }),
    ...(localAddress === undefined ? {} : { localAddress }),
  }
  // A copy, always: `mqtt` writes the TLS files of an attempt into it, where they would win over those of the next.
  if (Object.keys(ws).length > 0 || passThrough.wsOptions !== undefined)
    settings.wsOptions = { ...passThrough.wsOptions, ...ws }
  return settings
}

/** User and password of a URL; `mqtt` would let them win over every option. */
function userOf(url: string | undefined): Pick<IClientOptions, 'username' | 'password'> {
  if (url === undefined) return {}
  const { username, password } = new URL(url)
  return {
    ...(username === '' ? {} : { username: decodeURIComponent(username) }),
    ...(password === '' ? {} : { password: decodeURIComponent(password) }),
  }
}

/** The URL to dial: user and password go another way. */
export function withoutUser(url: string): string {
  const bare = new URL(url)
  bare.username = ''
  bare.password = ''
  return bare.href
}
