import { describe, expect, it } from 'vitest'
import type { ConnectionState, ProtocolVersion } from '../../../src/core/connection/connection-state.js'
import { MqttError } from '../../../src/core/errors.js'
import { describeTransition } from '../../../src/core/log-lines.js'
import { brokerLimits } from '../../../src/core/protocol/packets.js'

const target = 'mqtt://a:1883, mqtt://b:1883'
const broker = 'mqtt://b:1883'
const cause = new MqttError('CONNECTION_LOST', 'keepalive timeout')
const olderBroker = new MqttError('CONNECT_REFUSED', 'mqtt://a:1883 refused the connection: 0x84', {
  reasonCode: 0x84,
})
const elsewhere = new MqttError('CONNECTION_LOST', 'the broker sent DISCONNECT: 0x9D Server moved', {
  reasonCode: 0x9d,
  serverReference: 'other.example:1884',
})
const idle: ConnectionState = { status: 'idle' }
const closing: ConnectionState = { status: 'closing' }

const connecting = (attempt: number, because?: MqttError): ConnectionState => ({
  status: 'connecting',
  attempt,
  ...(because === undefined ? {} : { cause: because }),
})
const connected = (
  attempt: number,
  protocolVersion: ProtocolVersion,
  sessionPresent: boolean,
): ConnectionState => ({
  status: 'connected',
  attempt,
  session: { broker, protocolVersion, sessionPresent, limits: brokerLimits(protocolVersion) },
})
const waiting = (attempt: number, delayMs: number): ConnectionState => ({
  status: 'waiting',
  attempt,
  delayMs,
  cause,
})

const LINES: readonly {
  readonly what: string
  readonly before: ConnectionState
  readonly state: ConnectionState
  readonly level: string
  readonly text: string
}[] = [
  {
    what: 'the first attempt',
    before: idle,
    state: connecting(1),
    level: 'debug',
    text: 'connecting to mqtt://a:1883, mqtt://b:1883, attempt 1',
  },
  {
    what: 'a later attempt',
    before: waiting(3, 10),
    state: connecting(4),
    level: 'debug',
    text: 'connecting to mqtt://a:1883, mqtt://b:1883, attempt 4',
  },
  {
    what: 'the fall back to 3.1.1',
    before: connecting(1),
    state: connecting(1, olderBroker),
    level: 'debug',
    text: 'connecting with MQTT 3.1.1, because MQTT 5 failed: mqtt://a:1883 refused the connection: 0x84',
  },
  {
    what: 'a broker that names another one',
    before: connected(1, 5, false),
    state: connecting(1, elsewhere),
    level: 'warn',
    text: 'the broker sent DISCONNECT: 0x9D Server moved; redirected to other.example:1884',
  },
  {
    what: 'the first connection',
    before: connecting(1),
    state: connected(1, 5, false),
    level: 'log',
    text: 'connected to mqtt://b:1883 with MQTT 5, new session',
  },
  {
    what: 'a connection at the first attempt with a session',
    before: connecting(1),
    state: connected(1, 4, true),
    level: 'log',
    text: 'connected to mqtt://b:1883 with MQTT 3.1.1, session resumed',
  },
  {
    what: 'a connection after failures',
    before: connecting(3),
    state: connected(3, 4, false),
    level: 'log',
    text: 'connected to mqtt://b:1883 with MQTT 3.1.1 at attempt 3, new session',
  },
  {
    what: 'a lost connection',
    before: connected(1, 5, false),
    state: waiting(0, 500),
    level: 'warn',
    text: 'connection lost: keepalive timeout; next attempt in 500 ms',
  },
  {
    what: 'a failed attempt',
    before: connecting(2),
    state: waiting(2, 1_000),
    level: 'warn',
    text: 'attempt 2 failed: keepalive timeout; next attempt in 1000 ms',
  },
  {
    what: 'a wanted end',
    before: closing,
    state: { status: 'closed' },
    level: 'log',
    text: 'connection to mqtt://a:1883, mqtt://b:1883 closed',
  },
  {
    what: 'a wanted end while it waits',
    before: waiting(2, 1_000),
    state: { status: 'closed' },
    level: 'log',
    text: 'connection to mqtt://a:1883, mqtt://b:1883 closed',
  },
  {
    what: 'a failed start',
    before: connecting(1),
    state: { status: 'closed', cause },
    level: 'error',
    text: 'stopped for good: keepalive timeout',
  },
  {
    what: 'a stop of an established connection',
    before: connected(1, 5, false),
    state: { status: 'closed', cause },
    level: 'error',
    text: 'stopped for good: keepalive timeout',
  },
  {
    what: 'the way to the end',
    before: connected(1, 5, false),
    state: closing,
    level: 'debug',
    text: 'closing (mqtt://a:1883, mqtt://b:1883)',
  },
  {
    what: 'no connection yet',
    before: idle,
    state: idle,
    level: 'debug',
    text: 'idle (mqtt://a:1883, mqtt://b:1883)',
  },
]

describe('describeTransition', () => {
  it.each(LINES)('for $what returns "$text" as $level', ({ before, state, level, text }) => {
    expect(describeTransition(state, before, target)).toEqual({ level, text })
  })
})
