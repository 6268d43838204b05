import { connect } from 'node:net'
import { type IClientOptions, MqttClient, connect as mqttConnect } from 'mqtt'
import type { ConnectedSession, ProtocolVersion } from '../../core/connection/connection-state.js'
import type { ResolvedOptions } from '../../options/resolved-options.js'
import { type Endpoint, Endpoints } from './endpoint.js'
import type { Dialler } from './link.js'
import { ClientLink, ignore } from './mqtt-link.js'
import { Unreleased, UnreleasedStore } from './reading.js'

/** Dials with `mqtt`: a fresh client for every attempt, which keeps nothing and repeats nothing by itself. */
export function createDialler(options: ResolvedOptions, endpoints = new Endpoints(options)): Dialler {
  const unreleased = new Unreleased()
  const { maxPacketBytes } = options.inbound
  return {
    unreleased,
    locate: (...where) => endpoints.next(...where),
    dial: (endpoint, version, events) => {
      // The debug formatting of `mqtt` costs a sixth of its time.
      const settings = { ...clientOptions(options, endpoint, version), log: ignore }
      const client = openClient(options, endpoint, settings)
      const connected = (session: ConnectedSession): void => {
        endpoints.keep()
        if (!session.sessionPresent) unreleased.clear()
        events.connected(session)
      }
      const link = new ClientLink(client, version, endpoint.name, { ...events, connected }, maxPacketBytes)
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
  // The TCP builder of `mqtt` takes no local address.
  const host = hostname.replace(/^\[|\]$/g, '')
  return new MqttClient(() => connect({ host, port: Number(port || 1883), localAddress }), settings)
}

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
function withoutUser(url: string): string {
  const bare = new URL(url)
  bare.username = ''
  bare.password = ''
  return bare.href
}
