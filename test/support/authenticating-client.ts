import type { IAuthPacket } from 'mqtt-packet'
import type { AuthenticationExchange } from '../../src/options/authentication.js'
import type { MqttModuleOptions } from '../../src/options/options.js'
import { sessionOnPeer } from './session-on-peer.js'

export const METHOD = 'TEST-CHALLENGE'
export const SUCCESS = 0x00
export const CONTINUE = 0x18
export const AGAIN = 0x19

type Properties = NonNullable<IAuthPacket['properties']>

/** The AUTH or CONNACK properties of this method. */
export function proof(data?: string, authenticationMethod: string | undefined = METHOD): Properties {
  return {
    ...(authenticationMethod === undefined ? {} : { authenticationMethod }),
    ...(data === undefined ? {} : { authenticationData: Buffer.from(data) }),
  }
}

export function auth(reasonCode: number, properties: Properties = proof()): IAuthPacket {
  return { cmd: 'auth', reasonCode, properties }
}

/** A session that authenticates with `exchange` on a scripted peer. Its CONNECT has arrived. */
export async function authenticating(exchange: AuthenticationExchange, options: MqttModuleOptions = {}) {
  const parts = sessionOnPeer({
    connect: 'background',
    reconnect: { delayMs: [60_000], resetAfterMs: 0 },
    drainTimeoutMs: 0,
    ...options,
    authentication: { method: METHOD, start: () => exchange, ...options.authentication },
  })
  await parts.session.start()
  const connection = await parts.peer.connection()
  return { ...parts, connection, connect: await connection.expect('connect') }
}
