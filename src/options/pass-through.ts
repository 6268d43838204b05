import type { IClientOptions } from 'mqtt'
import type { BrokerLimits } from '../core/protocol/packets.js'

/** Options that are passed to the `mqtt` package unchanged. */
export type PassThroughOptions = Pick<IClientOptions, keyof typeof PASS_THROUGH>

/** Names of the options that are passed to `mqtt` unchanged. */
export const PASS_THROUGH = {
  ALPNProtocols: true,
  ca: true,
  cert: true,
  clean: true,
  clientId: true,
  createWebsocket: true,
  keepalive: true,
  key: true,
  password: true,
  properties: true,
  rejectUnauthorized: true,
  servername: true,
  socksProxy: true,
  socksTimeout: true,
  transformWsUrl: true,
  username: true,
  will: true,
  wsOptions: true,
} as const satisfies Partial<Record<keyof IClientOptions, true>>

/** What is known about the broker. */
export interface KnownLimits {
  /**
   * Limits of the broker in addition to those that it announces in CONNACK (MQTT 5, 3.2.2.3); the stricter one applies. MQTT
   * 3.1.1 brokers announce none. `brokerProfiles` has those of some brokers. @default none
   */
  readonly brokerLimits?: Partial<BrokerLimits>
}

/**
 * TLS files. The client reads them before every attempt to connect, so that a renewed certificate is used without a
 * restart. If a file cannot be read or used, the attempt fails with a cause that names the file.
 */
export interface TlsFileOptions {
  /** CA certificates in PEM format, in place of `ca`: a path or a list of paths. @default none */
  readonly caPath?: string | readonly string[]
  /** Path of the client certificate in PEM format, in place of `cert`. @default none */
  readonly certPath?: string
  /** Path of the private key in PEM format, in place of `key`. @default none */
  readonly keyPath?: string
  /** Passphrase of the private key in `key` or `keyPath`. @default none */
  readonly passphrase?: string
}

/** Credentials for one attempt to connect. */
export interface MqttCredentials
  extends Pick<PassThroughOptions, 'username' | 'password' | 'ca' | 'cert' | 'key'>,
    TlsFileOptions {
  /** HTTP headers of the WebSocket handshake. */
  readonly headers?: Readonly<Record<string, string>>
  /** Authentication Data, such as a token; see the option `authentication`. At most 65,535 bytes. @default none */
  readonly authenticationData?: string | Buffer
  /**
   * Until when these credentials hold, in milliseconds since 1970 (like `Date.now()`). The client renews them before: after 75
   * to 90 % of the remaining time it calls `credentials` again, and authenticates again with AUTH, or without
   * `authentication` connects again. @default they hold for as long as the connection
   */
  readonly expiresAtMs?: number
}
