import type { Replacements } from './schema.js'

const URL_PARTS =
  'make it part of "url", such as "mqtt://host:1883"; use "mqtts" for TLS, and "ws" or "wss" for WebSocket'
const NO_STORE = 'remove it, and set "outbound.whenBlocked" to choose what waits during an outage'
const ALWAYS = 'remove it; every subscription is restored after a reconnect'

/** What to use in place of options of Nest's built-in transport, of `nest-mqtt` and of `mqtt`. */
export const REPLACEMENTS: Replacements = {
  beforeHandle: 'use a guard or an interceptor',
  caPaths: 'use "caPath"',
  connectTimeout: 'use "connectTimeoutMs"',
  deserializer: 'use "codec"',
  host: URL_PARTS,
  hostname: URL_PARTS,
  incomingStore: NO_STORE,
  logger: 'remove it, and set the logger of Nest with app.useLogger()',
  maxConnectionAttempts:
    'use connect: "fail-fast" to fail after one round of attempts, or "background" to start without a broker',
  options: 'pass its properties to forRoot() directly',
  outgoingStore: NO_STORE,
  path: URL_PARTS,
  port: URL_PARTS,
  protocol: URL_PARTS,
  protocolId: 'use "protocolVersion"',
  queue: 'use "sharedGroup"',
  queueQoSZero: 'use "outbound.whenBlocked"',
  reconnectOnConnackError: 'use "reconnect.verdict"',
  reconnectPeriod: 'use "reconnect.delayMs"',
  reschedulePings: 'remove it',
  resubscribe: ALWAYS,
  serializer: 'use "codec"',
  servers: 'pass a list to "url"',
  share: 'use "sharedGroup"',
  subscribeOptions: 'use the options of each handler: handle({ qos, noLocal, retainHandling })',
  transport: 'remove it; MqttModule.microservice() sets the transport',
  userProperties:
    'use "properties.userProperties" for CONNECT, and the option "properties" of each publish for messages',
}
