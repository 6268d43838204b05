import type { Replacements } from './schema.js'

const URL_PARTS =
  'write it into "url": "mqtt://host:1883", with "mqtts" for TLS and "ws" or "wss" for WebSocket'
const NO_STORE = 'there are no stores: "outbound.whenBlocked" says what waits over an outage'
const ALWAYS = 'it needs no setting: every subscription is restored after a reconnect'

/** Options of Nest's built-in transport, of `nest-mqtt` and of `mqtt` that have another name, or no meaning, here. */
export const REPLACEMENTS: Replacements = {
  beforeHandle: 'use a guard or an interceptor',
  caPaths: 'use "caPath"',
  connectTimeout: 'use "connectTimeoutMs"',
  deserializer: 'use "codec"',
  host: URL_PARTS,
  hostname: URL_PARTS,
  incomingStore: NO_STORE,
  logger: 'use the logger of Nest: app.useLogger()',
  maxConnectionAttempts:
    'use connect: "fail-fast" to fail after one round of attempts, or "background" to start without a broker',
  options: 'give its properties to forRoot() directly',
  outgoingStore: NO_STORE,
  path: URL_PARTS,
  port: URL_PARTS,
  protocol: URL_PARTS,
  protocolId: 'use "protocolVersion"',
  queue: 'use "sharedGroup"',
  queueQoSZero: 'use "outbound.whenBlocked"',
  reconnectOnConnackError: 'use "reconnect.verdict"',
  reconnectPeriod: 'use "reconnect.delayMs"',
  reschedulePings: 'it needs no setting',
  resubscribe: ALWAYS,
  serializer: 'use "codec"',
  servers: 'give a list to "url"',
  share: 'use "sharedGroup"',
  subscribeOptions: 'use the options of each handler: handle({ qos, noLocal, retainHandling })',
  transport: 'MqttModule.microservice() names it',
  userProperties:
    'use "properties.userProperties" for CONNECT, and the option "properties" of each publish for messages',
}
