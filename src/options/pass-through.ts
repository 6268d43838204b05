import type { IClientOptions } from 'mqtt'

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
