import { expect, vi } from 'vitest'
import type { PublishOutcome } from '../../src/core/outbound/publish-outcome.js'
import type { PublishOptions, TryPublishOptions } from '../../src/options/client-options.js'
import type { PeerConnection } from '../../src/testing/index.js'
import { quiet } from './held-clock.js'
import {
  comeBack,
  expectAddsUp,
  goOffline,
  type PublisherOnPeer,
  publisherOnPeer,
  SlowLink,
} from './publisher-on-peer.js'
import { RandomBroker } from './random-broker.js'
import { SeededRandom } from './seeded-random.js'

const BATCH = 40
const MAX_TURNS = 5_000
const OUTBOUND = {
  maxInFlight: 200,
  maxQueued: 300,
  maxQueuedBytes: 60_000,
  maxAgeMs: 5_000,
  maxDelayMs: 200,
  ackTimeoutMs: 400,
} as const
/** What publishes under `drop` may hold back on a link that is not known to be slow. */
const MAX_BURST_BYTES = 4_194_304
const UNLIMITED = 268_435_455

type Tally = Record<PublishOutcome['status'], number>

/** Publishes of every kind at a broker that does everything that a broker and a network can do, in random order. */
export class PublishStorm {
  calls = 0
  /** Promises that are settled, each counted as often as it settles. */
  settled = 0
  /** Those of `publish` that were thrown back as mistakes: they were never begun. */
  rejected = 0
  /** Calls of `tryPublish`, and those of them that were thrown back. */
  readonly tried = { accepted: 0, dropped: 0, rejected: 0 }
  readonly tally: Tally = { sent: 0, acknowledged: 0, dropped: 0, refused: 0, lost: 0, stored: 0 }
  readonly reasons = new Set<string>()
  reconnects = 0
  /** Connections that the client gave up because acknowledgements stayed away. */
  givenUp = 0
  private readonly broker: RandomBroker
  private connection: PeerConnection | undefined
  private slow: SlowLink | undefined
  private isStalled = false
  /** Maximum number of responses that the broker sends at a time. */
  private eagerness = 20
  private readonly aborts: AbortController[] = []

  private constructor(
    readonly parts: PublisherOnPeer,
    private readonly random: SeededRandom,
    private readonly version: 4 | 5,
  ) {
    this.broker = new RandomBroker(random, version === 5 ? 0.05 : 0)
    this.broker.connected(parts.connection)
    this.connection = parts.connection
  }

  static async start(version: 4 | 5, seed: number): Promise<PublishStorm> {
    const parts = await publisherOnPeer({
      protocolVersion: version,
      clean: false,
      clientId: 'storm',
      outbound: OUTBOUND,
    })
    return new PublishStorm(parts, new SeededRandom(seed), version)
  }

  /** Publishes, lets a little time pass, lets the broker and the network do something, and looks at the counters. */
  async turn(): Promise<void> {
    const { random } = this
    for (let count = random.below(2 * BATCH); count > 0; count -= 1) this.publish()
    if (random.chance(0.5)) this.aborts.splice(random.below(this.aborts.length + 1), 1)[0]?.abort()
    vi.advanceTimersByTime(random.below(40))
    await quiet(2 + random.below(6))
    this.noticeGivenUp()
    await this.disturb()
    this.answer()
    this.check()
  }

  /** The broker is available and responds to everything, until every publish has settled. */
  async calm(): Promise<void> {
    if (this.isStalled) await this.die()
    if (this.connection === undefined) await this.connect()
    await this.slow?.free()
    this.eagerness = 1_000
    for (let turns = 0; this.open > 0; turns += 1) {
      expect(turns, `${this.open} publishes never settle`).toBeLessThan(MAX_TURNS)
      vi.advanceTimersByTime(20)
      await quiet()
      this.noticeGivenUp()
      if (this.connection === undefined) await this.connect()
      this.answer()
      this.check()
    }
  }

  /** Publishes with a promise that has not settled. */
  get open(): number {
    return this.calls - this.settled - this.tried.accepted - this.tried.dropped - this.tried.rejected
  }

  private publish(): void {
    const { random } = this
    this.calls += 1
    const topic = `topic/${random.below(40)}`
    const payload = Buffer.alloc(random.below(random.chance(0.02) ? 3_000 : 200))
    const common: TryPublishOptions = {
      retain: random.chance(0.2),
      ...(random.chance(0.2) ? { properties: this.properties() } : {}),
    }
    if (random.chance(0.2)) return this.tryPublish(topic, payload, common)
    const options: PublishOptions = {
      ...common,
      qos: random.pick([0, 1, 2]),
      whenBlocked: random.pick(['drop', 'latest', 'queue', 'wait']),
      ...(random.chance(0.2) ? { timeoutMs: 1 + random.below(2_000) } : {}),
      ...(random.chance(0.05) ? { signal: this.signal() } : {}),
    }
    this.parts.mqtt.publish(topic, payload, options).then(this.end, this.reject)
  }

  private tryPublish(topic: string, payload: Buffer, common: TryPublishOptions): void {
    const whenBlocked = this.random.pick(['drop', 'latest', 'queue'])
    try {
      this.tried[this.parts.mqtt.tryPublish(topic, payload, { ...common, whenBlocked }).status] += 1
    } catch (error) {
      expect(error).toMatchObject({ code: 'PACKET_TOO_LARGE' })
      this.tried.rejected += 1
    }
  }

  private readonly end = (outcome: PublishOutcome): void => {
    this.settled += 1
    this.tally[outcome.status] += 1
    if (outcome.status === 'dropped') this.reasons.add(outcome.reason)
  }

  private readonly reject = (error: unknown): void => {
    this.settled += 1
    this.rejected += 1
    expect(error).toMatchObject({ code: 'PACKET_TOO_LARGE' })
  }

  private properties(): NonNullable<PublishOptions['properties']> {
    const { random } = this
    return {
      ...(random.chance(0.5) ? { messageExpiryInterval: 1 + random.below(3) } : {}),
      ...(random.chance(0.5) ? { userProperties: { key: 'x'.repeat(random.below(50)) } } : {}),
    }
  }

  private signal(): AbortSignal {
    const aborting = new AbortController()
    if (this.random.chance(0.1)) aborting.abort()
    else this.aborts.push(aborting)
    return aborting.signal
  }

  private async disturb(): Promise<void> {
    const { random, connection } = this
    if (connection === undefined) {
      if (random.chance(0.2)) await this.connect()
      return
    }
    if (random.chance(this.isStalled ? 0.2 : 0.02)) return this.die()
    if (random.chance(0.1)) this.eagerness = random.pick([0, 0, 1, 10, 50, 1_000])
    if (random.chance(0.01)) {
      this.isStalled = true
      connection.stall()
    }
    if (this.slow === undefined && random.chance(0.04))
      this.slow = await SlowLink.of({ ...this.parts, connection }, 0)
    else if (random.chance(0.05)) {
      await this.slow?.free()
      this.slow = undefined
    } else if (random.chance(0.3)) await this.slow?.answer(1 + random.below(3))
  }

  /** The client gives up a connection on which acknowledgements stay away, and no other one. */
  private noticeGivenUp(): void {
    const { mqtt } = this.parts
    if (this.connection === undefined || mqtt.state.status === 'connected') return
    this.givenUp += 1
    expect(mqtt.stats().connection.ackTimeouts).toBe(this.givenUp)
    this.leave()
  }

  private async die(): Promise<void> {
    const { connection } = this
    if (connection === undefined) return
    await goOffline({ ...this.parts, connection })
    this.leave()
  }

  private leave(): void {
    this.connection = undefined
    this.slow = undefined
    this.isStalled = false
  }

  private async connect(): Promise<void> {
    const { random, version } = this
    const sessionPresent = random.chance(0.7)
    const receiveMaximum = version === 5 ? random.pick([3, 40, 65_535]) : 65_535
    const properties = {
      receiveMaximum,
      topicAliasMaximum: random.pick([0, 5, 100]),
      maximumPacketSize: random.pick([500, UNLIMITED]),
    }
    if (!sessionPresent) this.broker.forget()
    this.connection = await comeBack(this.parts, {
      sessionPresent,
      ...(version === 5 ? { properties } : {}),
    })
    this.broker.connected(this.connection, receiveMaximum)
    this.reconnects += 1
  }

  private answer(): void {
    if (this.connection === undefined || this.isStalled) return
    this.broker.take()
    for (let count = this.random.below(this.eagerness + 1); count > 0 && this.broker.pending > 0; count -= 1)
      this.broker.answer()
  }

  private check(): void {
    const { calls, rejected, tried, parts } = this
    expectAddsUp(parts.mqtt)
    // Nothing that this broker sends is a reason to hang up.
    if (this.connection !== undefined) expect(parts.mqtt.state.status).toBe('connected')
    const { attempted, inFlight, queuedBytes } = parts.mqtt.stats().outbound
    expect(attempted).toBe(calls - rejected - tried.rejected)
    expect(inFlight).toBeLessThanOrEqual(OUTBOUND.maxInFlight)
    expect(queuedBytes).toBeLessThanOrEqual(OUTBOUND.maxQueuedBytes + MAX_BURST_BYTES)
  }
}
