import { once } from 'node:events'
import { createServer, type Server } from 'node:net'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { MqttSession } from '../../src/client/mqtt-session.js'
import {
  CONNACK_RULES,
  CONNACK_RULES_3_1_1,
  DISCONNECT_RULES,
  type ReasonCodeRule,
} from '../../src/core/connection/reconnect-rules.js'
import type { MqttError } from '../../src/core/errors.js'
import { resolveOptions } from '../../src/options/option-checks.js'
import type { MqttModuleOptions, Verdict } from '../../src/options/options.js'
import { PeerConnection } from '../../src/testing/index.js'
import { holdClock, quiet } from '../support/held-clock.js'
import { nextState } from '../support/next-state.js'
import { RecordingLog } from '../support/recording-log.js'
import { sessionOnPeer } from '../support/session-on-peer.js'

const DAY_MS = 86_400_000
const DELAY_MS = 7_000
const ELSEWHERE = 'other.example:1884'

holdClock()

type Table = 'CONNACK of MQTT 5' | 'CONNACK of MQTT 3.1.1' | 'DISCONNECT of MQTT 5'

interface Row extends ReasonCodeRule {
  readonly table: Table
  readonly code: string
}

const rowsOf = (table: Table, rules: readonly ReasonCodeRule[]): Row[] =>
  rules.map(rule => ({
    ...rule,
    table,
    code: `0x${rule.reasonCode.toString(16).padStart(2, '0').toUpperCase()}`,
  }))

const ROWS: readonly Row[] = [
  ...rowsOf('CONNACK of MQTT 5', CONNACK_RULES),
  ...rowsOf('CONNACK of MQTT 3.1.1', CONNACK_RULES_3_1_1),
  ...rowsOf('DISCONNECT of MQTT 5', DISCONNECT_RULES),
]
const rows = (...verdicts: Verdict[]): Row[] => ROWS.filter(row => verdicts.includes(row.verdict))

const qos1 = (topic: string) => ({ topic, payload: Buffer.from('1'), qos: 1 as const, retain: false })

/** A session in which nothing is known of the broker yet. Its credentials are numbered by the calls for them. */
async function started(table: Table, options: MqttModuleOptions = {}) {
  const stopped: MqttError[] = []
  const asked = { credentials: 0 }
  const parts = sessionOnPeer({
    connect: 'background',
    protocolVersion: table === 'CONNACK of MQTT 3.1.1' ? 4 : 5,
    reconnect: { delayMs: [DELAY_MS] },
    onStopped: cause => stopped.push(cause),
    credentials: async () => {
      asked.credentials += 1
      return { username: `user-${asked.credentials}`, password: `password-${asked.credentials}` }
    },
    ...options,
  })
  await parts.session.start()
  return { ...parts, stopped, asked }
}

type Parts = Awaited<ReturnType<typeof started>>

/** Answers CONNECT with the code, or accepts it and sends DISCONNECT. */
async function endWith(
  parts: Parts,
  { table, reasonCode }: Row,
  serverReference?: string,
): Promise<PeerConnection> {
  const properties = serverReference === undefined ? {} : { properties: { serverReference } }
  const connection = await parts.peer.connection()
  await connection.expect('connect')
  if (table === 'DISCONNECT of MQTT 5') {
    connection.send({ cmd: 'connack', reasonCode: 0, sessionPresent: false })
    await parts.session.connection.whenConnected()
    connection.send({ cmd: 'disconnect', reasonCode, ...properties })
  } else {
    connection.send({
      cmd: 'connack',
      reasonCode,
      returnCode: reasonCode,
      sessionPresent: false,
      ...properties,
    })
  }
  return connection
}

describe.each(rows('retry', 'retry-with-fresh-credentials'))(
  '$table $code: $verdict ($why)',
  ({ ...row }) => {
    it('reconnects after exactly the delay, with new credentials', async () => {
      const parts = await started(row.table)
      const { peer, session, asked, stopped } = parts
      const first = await endWith(parts, row)
      expect(first.received[0]).toMatchObject({ username: 'user-1', password: Buffer.from('password-1') })
      await nextState(session, 'waiting')
      expect(session.connection.state).toMatchObject({
        delayMs: DELAY_MS,
        cause: { reasonCode: row.reasonCode },
      })
      await first.closed()
      vi.advanceTimersByTime(DELAY_MS - 1)
      await quiet()
      expect({ dials: peer.dials, credentials: asked.credentials }).toEqual({ dials: 1, credentials: 1 })
      vi.advanceTimersByTime(1)
      const second = await peer.accept()
      await session.connection.whenConnected()
      expect(second.received[0]).toMatchObject({ username: 'user-2', password: Buffer.from('password-2') })
      expect({ dials: peer.dials, credentials: asked.credentials }).toEqual({ dials: 2, credentials: 2 })
      expect(stopped).toEqual([])
      await session.close()
    })
  },
)

describe.each(rows('go-elsewhere'))('$table $code: $verdict ($why)', ({ ...row }) => {
  it('connects to a Server Reference at once', async () => {
    const parts = await started(row.table)
    const { peer, session, asked, log } = parts
    const first = await endWith(parts, row, ELSEWHERE)
    await first.closed()
    // The clock stands still.
    await peer.accept()
    await session.connection.whenConnected()
    expect({ dials: peer.dials, credentials: asked.credentials }).toEqual({ dials: 2, credentials: 2 })
    expect(log.visible).toContainEqual(expect.stringContaining(`redirected to ${ELSEWHERE}`))
    await session.close()
  })

  it.each([
    ['no Server Reference', undefined],
    ['an empty Server Reference', ' '],
  ])('with %s waits for the delay', async (_what, serverReference) => {
    const parts = await started(row.table)
    const { peer, session } = parts
    await endWith(parts, row, serverReference)
    await nextState(session, 'waiting')
    vi.advanceTimersByTime(DELAY_MS - 1)
    await quiet()
    expect(peer.dials).toBe(1)
    vi.advanceTimersByTime(1)
    await peer.accept()
    await session.connection.whenConnected()
    await session.close()
  })
})

describe.each(rows('stop'))('$table $code: $verdict ($why)', ({ ...row }) => {
  it('stops the connection permanently, and reports it everywhere', async () => {
    const { session, peer, log, stopped, ...parts } = await started(row.table, {
      clean: false,
      clientId: 'kept',
    })
    // A publish of a kept session waits for the broker over the loss of a connection.
    const first = await peer.accept()
    await session.connection.whenConnected()
    const pending = session.publish(qos1('pending'))
    await first.expect('publish')
    if (row.table !== 'DISCONNECT of MQTT 5') {
      first.cut()
      await nextState(session, 'waiting')
      vi.advanceTimersByTime(DELAY_MS)
      const waiting = session.connection.whenConnected()
      const rejected = expect(waiting).rejects.toMatchObject({ reasonCode: row.reasonCode })
      await endWith({ session, peer, log, stopped, ...parts }, row)
      await rejected
    } else first.send({ cmd: 'disconnect', reasonCode: row.reasonCode })
    await nextState(session, 'closed')
    const { dials } = peer

    const cause = { name: 'MqttError', reasonCode: row.reasonCode }
    expect(session.connection.state).toMatchObject({ status: 'closed', cause })
    expect(await pending).toMatchObject({ status: 'lost', cause })
    expect(await session.publish(qos1('late'))).toEqual({ status: 'dropped', reason: 'closed' })
    expect(session.tryPublish({ ...qos1('late'), qos: 0 })).toEqual({ status: 'dropped', reason: 'closed' })
    await expect(session.connection.whenConnected()).rejects.toMatchObject(cause)
    expect(session.health).toMatchObject({ state: 'down', connection: { status: 'closed', cause } })

    vi.advanceTimersByTime(DAY_MS)
    await quiet()
    expect(peer.dials).toBe(dials)
    expect(stopped).toEqual([expect.objectContaining(cause)])
    expect(log.lines.filter(line => line.level === 'error')).toEqual([
      { level: 'error', text: expect.stringContaining(`stopped for good: `) },
    ])
    expect(log.visible.at(-1)).toContain(row.code)
    await session.close()
    expect(stopped).toHaveLength(1)
  })
})

describe('a stop at a fail-fast start', () => {
  it('rejects the start and is reported once', async () => {
    const stopped: MqttError[] = []
    const { session, peer, log } = sessionOnPeer({ onStopped: cause => stopped.push(cause) })
    const rejected = expect(session.start()).rejects.toMatchObject({
      code: 'CONNECT_REFUSED',
      reasonCode: 0x8a,
    })
    const connection = await peer.connection()
    await connection.expect('connect')
    connection.send({ cmd: 'connack', reasonCode: 0x8a, sessionPresent: false })
    await rejected
    expect(stopped).toEqual([])
    expect(log.lines.filter(line => line.level === 'error')).toEqual([])
    vi.advanceTimersByTime(DAY_MS)
    await quiet()
    expect(peer.dials).toBe(1)
  })
})

describe('onStopped', () => {
  it('that throws is logged as an error, and the connection is still closed', async () => {
    const parts = await started('DISCONNECT of MQTT 5', {
      onStopped: () => {
        throw new Error('no pager')
      },
    })
    const [row] = rows('stop').filter(({ table }) => table === 'DISCONNECT of MQTT 5')
    if (row === undefined) throw new Error('there is no such row')
    await endWith(parts, row)
    await nextState(parts.session, 'closed')
    expect(parts.log.visible.at(-1)).toBe('onStopped failed: no pager')
    await parts.session.close()
  })

  it('is called for a connection that stays closed, even if it is started again', async () => {
    const causes: unknown[] = []
    const parts = await started('DISCONNECT of MQTT 5', { onStopped: cause => causes.push(cause) })
    const { peer, session } = parts
    const first = await peer.accept()
    await session.connection.whenConnected()
    first.send({ cmd: 'disconnect', reasonCode: 0x8e })
    await nextState(session, 'closed')
    expect(causes).toHaveLength(1)
    await session.start()
    expect(session.connection.state.status).toBe('closed')
    expect(peer.dials).toBe(1)
  })
})

describe('an end with a Reason Code that is in no table', () => {
  it.each([
    ['CONNACK', 0xfe],
    ['CONNACK', 0xa0],
    ['DISCONNECT', 0x04],
    ['DISCONNECT', 0xfe],
  ] as const)('%s with %i is a retry', async (cmd, reasonCode) => {
    const table = cmd === 'CONNACK' ? 'CONNACK of MQTT 5' : 'DISCONNECT of MQTT 5'
    const parts = await started(table)
    await endWith(parts, { table, reasonCode, verdict: 'retry', why: '', code: '' })
    await nextState(parts.session, 'waiting')
    vi.advanceTimersByTime(DELAY_MS)
    await parts.peer.accept()
    await parts.session.connection.whenConnected()
    await parts.session.close()
  })
})

describe('reconnect.verdict', () => {
  const row = (table: Table, reasonCode: number): Row => {
    const found = ROWS.find(candidate => candidate.table === table && candidate.reasonCode === reasonCode)
    if (found === undefined) throw new Error('there is no such row')
    return found
  }
  const ruledBy = (verdict: (cause: MqttError) => Verdict | undefined) => ({
    reconnect: { delayMs: [DELAY_MS], verdict },
  })

  it.each([
    row('CONNACK of MQTT 5', 0x8a),
    row('CONNACK of MQTT 3.1.1', 0x02),
    row('DISCONNECT of MQTT 5', 0x00),
    row('DISCONNECT of MQTT 5', 0x8e),
  ])('turns the stop at $table $code into a retry', async stop => {
    const parts = await started(
      stop.table,
      ruledBy(() => 'retry'),
    )
    await endWith(parts, stop)
    await nextState(parts.session, 'waiting')
    vi.advanceTimersByTime(DELAY_MS)
    await parts.peer.accept()
    await parts.session.connection.whenConnected()
    expect(parts.stopped).toEqual([])
    await parts.session.close()
  })

  it.each([
    row('CONNACK of MQTT 5', 0x87),
    row('CONNACK of MQTT 3.1.1', 0x05),
    row('DISCONNECT of MQTT 5', 0x8b),
  ])('turns the retry at $table $code into a stop', async retry => {
    const causes: MqttError[] = []
    const parts = await started(
      retry.table,
      ruledBy(cause => {
        causes.push(cause)
        return 'stop'
      }),
    )
    await endWith(parts, retry)
    await nextState(parts.session, 'closed')
    expect(causes).toEqual([expect.objectContaining({ reasonCode: retry.reasonCode })])
    expect(parts.stopped).toEqual(causes)
    await parts.session.close()
  })

  it('also stops after an end without a Reason Code', async () => {
    const parts = await started(
      'CONNACK of MQTT 5',
      ruledBy(() => 'stop'),
    )
    ;(await parts.peer.connection()).cut()
    await nextState(parts.session, 'closed')
    expect(parts.stopped).toMatchObject([{ code: 'CONNECT_FAILED' }])
    await parts.session.close()
  })

  it('prevents a redirect', async () => {
    const parts = await started(
      'CONNACK of MQTT 5',
      ruledBy(() => 'retry'),
    )
    await endWith(parts, row('CONNACK of MQTT 5', 0x9c), ELSEWHERE)
    await nextState(parts.session, 'waiting')
    await quiet()
    expect(parts.peer.dials).toBe(1)
    await parts.session.close()
  })

  it.each(['CONNACK of MQTT 5', 'DISCONNECT of MQTT 5'] as const)(
    'go-elsewhere at %s without a Server Reference is a retry after the delay',
    async table => {
      const parts = await started(
        table,
        ruledBy(() => 'go-elsewhere'),
      )
      await endWith(parts, row(table, 0x80))
      await nextState(parts.session, 'waiting')
      await quiet()
      expect(parts.peer.dials).toBe(1)
      await parts.session.close()
    },
  )

  it.each([
    [
      'that throws',
      () => {
        throw new Error('a bug')
      },
    ],
    ['that returns nothing', () => undefined],
  ])('%s applies the tables', async (_what, verdict) => {
    const retried = await started('CONNACK of MQTT 5', ruledBy(verdict))
    await endWith(retried, row('CONNACK of MQTT 5', 0x80))
    await nextState(retried.session, 'waiting')
    await retried.session.close()

    const stopped = await started('CONNACK of MQTT 5', ruledBy(verdict))
    await endWith(stopped, row('CONNACK of MQTT 5', 0x8a))
    await nextState(stopped.session, 'closed')
    expect(stopped.stopped).toMatchObject([{ reasonCode: 0x8a }])
    await stopped.session.close()

    const gone = await started('CONNACK of MQTT 5', ruledBy(verdict))
    await endWith(gone, row('CONNACK of MQTT 5', 0x9d), ELSEWHERE)
    await gone.peer.accept()
    await gone.session.connection.whenConnected()
    await gone.session.close()
  })

  it.each([['text', 'sometimes'] as const, ['number', 1] as const])(
    'that returns a %s instead of a verdict applies the tables',
    async (_what, answer) => {
      const parts = await started('CONNACK of MQTT 5', {
        reconnect: { delayMs: [DELAY_MS], verdict: () => JSON.parse(JSON.stringify(answer)) },
      })
      const connection = await endWith(parts, row('CONNACK of MQTT 5', 0x8a))
      await connection.closed()
      await quiet()
      const { status } = parts.session.connection.state
      await parts.session.close()
      expect(status).toBe('closed')
    },
  )
})

/** A broker on a real port of which the test plays every packet. */
class TcpPeer {
  readonly connections: PeerConnection[] = []
  private readonly taken = new Set<PeerConnection>()

  private constructor(
    private readonly server: Server,
    readonly port: number,
  ) {
    server.on('connection', socket => this.connections.push(new PeerConnection(socket)))
  }

  static async start(): Promise<TcpPeer> {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const address = server.address()
    if (typeof address !== 'object' || address === null) throw new Error('the server has no port')
    return new TcpPeer(server, address.port)
  }

  async connection(): Promise<PeerConnection> {
    const next = this.connections.find(connection => !this.taken.has(connection))
    if (next === undefined) {
      await once(this.server, 'connection')
      return this.connection()
    }
    this.taken.add(next)
    return next
  }

  async accept(): Promise<PeerConnection> {
    const connection = await this.connection()
    await connection.expect('connect')
    connection.send({ cmd: 'connack', reasonCode: 0, sessionPresent: false })
    return connection
  }

  async refuse(serverReference?: string): Promise<PeerConnection> {
    const connection = await this.connection()
    await connection.expect('connect')
    const properties = serverReference === undefined ? {} : { properties: { serverReference } }
    connection.send({ cmd: 'connack', reasonCode: 0x9c, sessionPresent: false, ...properties })
    return connection
  }

  async stop(): Promise<void> {
    const closed = once(this.server, 'close')
    this.server.close()
    for (const connection of this.connections) connection.cut()
    await closed
  }
}

describe('a Server Reference on real ports', () => {
  let home: TcpPeer
  let other: TcpPeer
  beforeEach(async () => {
    home = await TcpPeer.start()
    other = await TcpPeer.start()
  })
  afterEach(() => Promise.all([home.stop(), other.stop()]))

  function session(options: MqttModuleOptions = {}) {
    const log = new RecordingLog()
    const url = `mqtt://user:hunter2@127.0.0.1:${home.port}`
    const reconnect = { delayMs: [DELAY_MS] }
    return {
      log,
      session: new MqttSession(
        resolveOptions({ url, protocolVersion: 5, keepalive: 0, reconnect, ...options }),
        log,
      ),
    }
  }

  it('of CONNACK is connected to at once, with the user of the URL, within a fail-fast start', async () => {
    const { session: under, log } = session()
    const starting = under.start()
    await home.refuse(`127.0.0.1:${other.port} 127.0.0.1:1`)
    const there = await other.accept()
    await starting
    expect(there.received[0]).toMatchObject({ username: 'user', password: Buffer.from('hunter2') })
    const broker = `mqtt://127.0.0.1:${other.port}`
    expect(under.connection.state).toMatchObject({ status: 'connected', session: { broker } })
    expect(JSON.stringify(log.lines)).not.toContain('hunter2')
    await under.close()
    expect({ home: home.connections.length, other: other.connections.length }).toEqual({ home: 1, other: 1 })
  })

  it('of DISCONNECT is connected to at once; a lost connection is retried there, and a failed attempt at the URL', async () => {
    const { session: under } = session()
    const starting = under.start()
    const first = await home.accept()
    await starting
    first.send({
      cmd: 'disconnect',
      reasonCode: 0x9d,
      properties: { serverReference: `127.0.0.1:${other.port}` },
    })
    const there = await other.accept()
    await under.connection.whenConnected()
    there.cut()
    await nextState(under, 'waiting')
    vi.advanceTimersByTime(DELAY_MS)
    ;(await other.connection()).cut()
    await nextState(under, 'connecting')
    await nextState(under, 'waiting')
    vi.advanceTimersByTime(DELAY_MS)
    await home.accept()
    await under.connection.whenConnected()
    await under.close()
    expect({ home: home.connections.length, other: other.connections.length }).toEqual({ home: 2, other: 2 })
  })

  it('two brokers that redirect to each other do not cause a loop', async () => {
    const { session: under } = session({ connect: 'background' })
    await under.start()
    for (let round = 1; round <= 3; round += 1) {
      await home.refuse(`127.0.0.1:${other.port}`)
      await other.refuse(`127.0.0.1:${home.port}`)
      await nextState(under, 'waiting')
      await quiet()
      expect({ home: home.connections.length, other: other.connections.length }).toEqual({
        home: round,
        other: round,
      })
      vi.advanceTimersByTime(DELAY_MS)
    }
    await under.close()
  })

  it('that is not a host is a failed attempt, and the URL is tried again', async () => {
    const { session: under, log } = session({ connect: 'background' })
    await under.start()
    await home.refuse('http://[not a host')
    await nextState(under, 'waiting')
    vi.advanceTimersByTime(DELAY_MS)
    await home.accept()
    await under.connection.whenConnected()
    expect(JSON.stringify(log.lines)).not.toContain('hunter2')
    await under.close()
  })
})
