import { newHandler } from '../../src/client/inbound/delivery.js'
import 'reflect-metadata'
import fc from 'fast-check'
import { connectAsync, type MqttClient } from 'mqtt'
import { generate } from 'mqtt-packet'
import { expect, it } from 'vitest'
import { MqttSession } from '../../src/client/mqtt-session.js'
import type { ConnectionState } from '../../src/core/connection/connection-state.js'
import { CONNACK_RULES, DISCONNECT_RULES } from '../../src/core/connection/reconnect-rules.js'
import { parseTopicFilter } from '../../src/core/topic/topic-filter.js'
import { resolveOptions } from '../../src/options/option-checks.js'
import { FaultLink } from '../../src/testing/index.js'
import { eventually } from '../support/eventually.js'
import { Mosquitto } from '../support/mosquitto.js'
import { RecordingLog } from '../support/recording-log.js'
import { SUBSCRIBE_QOS_1 } from '../support/session-on-peer.js'

const FAULTS = 300
const FILTERS = 50
/** Another run: FUZZ_SEED=… ; a failure names the seed and the fault. */
const SEED = Number(process.env['FUZZ_SEED'] ?? 20_261_120)

const codeOf = (rules: readonly { readonly reasonCode: number }[]) =>
  fc.constantFrom(...rules.map(({ reasonCode }) => reasonCode))

const fault = fc.oneof(
  { weight: 25, arbitrary: fc.record({ kind: fc.constant('cut' as const) }) },
  {
    weight: 15,
    arbitrary: fc.record({ kind: fc.constant('refuse' as const), dials: fc.integer({ min: 1, max: 3 }) }),
  },
  {
    weight: 20,
    arbitrary: fc.record({ kind: fc.constant('disconnect' as const), code: codeOf(DISCONNECT_RULES) }),
  },
  {
    weight: 15,
    arbitrary: fc.record({ kind: fc.constant('connack' as const), code: codeOf(CONNACK_RULES) }),
  },
  { weight: 10, arbitrary: fc.record({ kind: fc.constant('kill' as const) }) },
  { weight: 10, arbitrary: fc.record({ kind: fc.constant('stall' as const) }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('half-open' as const) }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('garbage' as const),
      bytes: fc.uint8Array({ minLength: 1, maxLength: 8 }),
    }),
  },
)
type Fault = typeof fault extends fc.Arbitrary<infer T> ? T : never

/** Which state may follow which: the diagram of the state machine. */
const LEGAL: Readonly<Record<ConnectionState['status'], readonly ConnectionState['status'][]>> = {
  idle: ['connecting', 'closed'],
  connecting: ['connecting', 'connected', 'waiting', 'closing', 'closed'],
  connected: ['connecting', 'waiting', 'closing', 'closed'],
  waiting: ['connecting', 'closed'],
  closing: ['closed'],
  closed: ['connecting'],
}

/** Everything that one fault needs, and the proof that it left nothing behind. */
class Bench {
  readonly received = new Map<string, number>()
  readonly illegal: string[] = []

  private constructor(
    readonly broker: Mosquitto,
    readonly link: FaultLink,
    readonly session: MqttSession,
  ) {
    for (let index = 0; index < FILTERS; index += 1) {
      session.addRoute(
        parseTopicFilter(`fuzz/${index}/+`),
        SUBSCRIBE_QOS_1,
        newHandler({
          name: 'fuzz',
          run: async packet => {
            this.received.set(
              packet.payload.toString(),
              (this.received.get(packet.payload.toString()) ?? 0) + 1,
            )
          },
        }),
      )
    }
    session.connection.attach({
      stateChanged: (state, before) => {
        if (!LEGAL[before.status].includes(state.status))
          this.illegal.push(`${before.status} → ${state.status}`)
      },
    })
  }

  static async start(): Promise<Bench> {
    const broker = await Mosquitto.start()
    const link = await FaultLink.start({ port: broker.port })
    const options = resolveOptions({
      url: link.url,
      protocolVersion: 5,
      keepalive: 1,
      connectTimeoutMs: 2_000,
      // Also what stops for good comes back here, so that every code can be tried.
      reconnect: { delayMs: [2], verdict: () => 'retry' },
    })
    const bench = new Bench(broker, link, new MqttSession(options, new RecordingLog()))
    await bench.session.listen()
    return bench
  }

  async inflict(next: Fault): Promise<void> {
    switch (next.kind) {
      case 'cut':
        return this.losing(() => this.link.cut())
      case 'half-open':
        return this.losing(() => this.link.halfOpen())
      case 'disconnect':
        return this.losing(() => this.link.inject(packet({ cmd: 'disconnect', reasonCode: next.code })))
      case 'garbage':
        // May be a piece of a packet, so the cut is what ends it.
        this.link.inject(Buffer.from(next.bytes))
        return this.losing(() => this.link.cut())
      case 'kill':
        await this.losing(() => this.broker.down('SIGKILL'))
        return this.broker.up()
      case 'refuse':
        this.link.refuse()
        return this.refusing(next.dials)
      case 'connack':
        this.link.refuse(true, packet({ cmd: 'connack', reasonCode: next.code, sessionPresent: false }))
        return this.refusing(2)
      case 'stall':
        this.link.stall()
        for (let turn = 0; turn < 20; turn += 1) await new Promise(setImmediate)
        this.link.heal()
    }
  }

  /** The connection is back, every subscription delivers, and nothing is left over. */
  async check(client: MqttClient, round: number): Promise<void> {
    await this.session.connection.whenConnected()
    await eventually(() => this.session.stats.subscriptions.granted === FILTERS)
    await Promise.all(
      Array.from({ length: FILTERS }, (_, index) =>
        client.publishAsync(`fuzz/${index}/x`, `${round}-${index}`, { qos: 1 }),
      ),
    )
    await eventually(() => this.countOf(round) === FILTERS)
    await eventually(() => this.link.open === 1)
    expect(this.session.stats.subscriptions).toMatchObject({ granted: FILTERS, refused: 0, pending: 0 })
    expect(this.illegal).toEqual([])
  }

  async stop(): Promise<void> {
    await this.session.close()
    await this.link.stop()
    await this.broker.stop()
  }

  private countOf(round: number): number {
    return [...this.received.keys()].filter(payload => payload.startsWith(`${round}-`)).length
  }

  private async losing(inflict: () => unknown): Promise<void> {
    const { losses } = this.session.stats.connection
    await inflict()
    await eventually(() => this.session.stats.connection.losses > losses)
  }

  private async refusing(dials: number): Promise<void> {
    let failed = 0
    const detach = this.session.connection.attach({
      stateChanged: (state, before) => {
        if (state.status === 'waiting' && before.status === 'connecting') failed += 1
      },
    })
    await this.losing(() => this.link.cut())
    await eventually(() => failed >= dials)
    detach()
    this.link.refuse(false)
  }
}

const packet = (fields: Parameters<typeof generate>[0]) => generate(fields, { protocolVersion: 5 })

const resources = (kind: string) => process.getActiveResourcesInfo().filter(name => name === kind).length

it(`${FAULTS} random faults (seed ${SEED}): the client always recovers completely and leaks nothing`, {
  timeout: 300_000,
}, async () => {
  const bench = await Bench.start()
  const dial = () => connectAsync(bench.broker.url, { reconnectPeriod: 0 })
  let client = await dial()
  await bench.check(client, 0)
  bench.received.clear()
  const before = { sockets: resources('TCPSocketWrap'), timers: resources('Timeout') }
  const faults = fc.sample(fault, { seed: SEED, numRuns: FAULTS })
  for (const [index, next] of faults.entries()) {
    try {
      await bench.inflict(next)
      if (!client.connected) client = await dial()
      await bench.check(client, index + 1)
    } catch (cause) {
      throw new Error(`seed ${SEED}, fault ${index}: ${JSON.stringify(next)}`, { cause })
    }
    bench.received.clear()
  }
  // A fault leaves sockets that are still closing; then there are no more than before the first.
  await eventually(() => resources('TCPSocketWrap') <= before.sockets)
  await eventually(() => resources('Timeout') <= before.timers + 1)
  expect(bench.session.stats.outbound.inFlight).toBe(0)
  await client.endAsync(true)
  await bench.stop()
})
