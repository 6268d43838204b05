import { expect, vi } from 'vitest'
import type { PublishOutcome } from '../../src/core/outbound/publish-outcome.js'
import { MqttService } from '../../src/mqtt.service.js'
import type { MqttModuleOptions } from '../../src/options/options.js'
import type { PeerConnection, ScriptedPeer } from '../../src/testing/index.js'
import { quiet } from './held-clock.js'
import { nextState } from './next-state.js'
import { sessionOnPeer } from './session-on-peer.js'

export const RECONNECT_MS = 1_000
/** Number of bytes that are written before the broker has responded to a marker. */
export const FIRST_WINDOW = 2_048

type Connack = Parameters<ScriptedPeer['accept']>[0]

/** A connected session that publishes, under a clock that the test holds. */
export async function publisherOnPeer(options: MqttModuleOptions = {}, connack: Connack = {}) {
  const { peer, session, log } = sessionOnPeer({
    connect: 'background',
    reconnect: { delayMs: [RECONNECT_MS], resetAfterMs: 0 },
    drainTimeoutMs: 0,
    ...options,
  })
  const mqtt = new MqttService(session)
  await session.start()
  const connection = await peer.accept(connack)
  await session.connection.whenConnected()
  return { peer, session, log, mqtt, connection }
}

export type PublisherOnPeer = Awaited<ReturnType<typeof publisherOnPeer>>

/** Every publish is in exactly one of the counters. */
export function expectAddsUp(mqtt: MqttService): void {
  const { outbound, store } = mqtt.stats()
  const { attempted, accepted, sent, acknowledged, refused, lost, stored, dropped } = outbound
  const pending = outbound.inFlight + outbound.queued + outbound.storing
  const sumOfDropped = Object.values(dropped).reduce((sum, count) => sum + count, 0)
  const ended = sent + acknowledged + refused + lost + stored + sumOfDropped
  expect({ attempted, ended }).toEqual({ attempted, ended: attempted - pending })
  if (store !== undefined) {
    const { delivered, evicted, expired, setAside, messages } = store
    expect(store.stored).toBe(delivered + evicted + expired + store.refused + setAside + messages)
  }
  expect(accepted).toBeLessThanOrEqual(attempted)
  expect(accepted).toBeGreaterThanOrEqual(attempted - sumOfDropped)
}

/** Closes; nothing is pending afterwards, and the counters add up before and after. */
export async function finish({ mqtt, session }: Pick<PublisherOnPeer, 'mqtt' | 'session'>): Promise<void> {
  expectAddsUp(mqtt)
  let isClosed = false
  const closed = session.close().then(() => {
    isClosed = true
  })
  while (!isClosed) {
    await quiet()
    vi.advanceTimersByTime(50)
  }
  await closed
  expectAddsUp(mqtt)
  expect(mqtt.stats().outbound).toMatchObject({ inFlight: 0, queued: 0, queuedBytes: 0, oldestMs: 0 })
}

/** Lets everything happen that is a matter of a moment: packets may be held for a part of a millisecond. */
export async function flow(): Promise<void> {
  await quiet()
  vi.advanceTimersByTime(1)
  await quiet()
}

/** Lets time pass in steps, and everything happen in between. */
export async function pass(timeMs: number, stepMs = timeMs): Promise<void> {
  for (let elapsed = 0; elapsed < timeMs; elapsed += stepMs) {
    vi.advanceTimersByTime(stepMs)
    await quiet()
  }
}

/** Ends the connection, and waits until the session knows. The next dial is `RECONNECT_MS` away. */
export async function goOffline({ session, connection }: PublisherOnPeer): Promise<void> {
  connection.cut()
  await nextState(session, 'waiting')
}

/** Dials again, and gives the new connection. */
export async function comeBack({ peer, session }: PublisherOnPeer, connack: Connack = {}) {
  peer.refuse(0)
  vi.advanceTimersByTime(RECONNECT_MS)
  const connection = await peer.accept(connack)
  await session.connection.whenConnected()
  return connection
}

const pingsOf = (connection: PeerConnection) =>
  connection.received.filter(({ cmd }) => cmd === 'pingreq').length

/** A link that takes one window of bytes and no more, until it is freed. */
export class SlowLink {
  private unanswered: number

  private constructor(private readonly connection: PeerConnection) {
    connection.respondsToPings = false
    this.unanswered = pingsOf(connection)
  }

  /** @param bytes what is written to it at once; the window is shut then */
  static async of(
    { connection, mqtt }: Pick<PublisherOnPeer, 'connection' | 'mqtt'>,
    bytes = FIRST_WINDOW,
  ): Promise<SlowLink> {
    const link = new SlowLink(connection)
    if (bytes > 0) expect(await mqtt.publish('filler', Buffer.alloc(bytes))).toEqual({ status: 'sent' })
    if (bytes > 0) await connection.expect('publish')
    await quiet()
    return link
  }

  /** Responds to this many of the received markers. */
  async answer(count = Number.POSITIVE_INFINITY): Promise<void> {
    await quiet()
    const due = Math.min(count, pingsOf(this.connection) - this.unanswered)
    this.unanswered += due
    for (let index = 0; index < due; index += 1) this.connection.send({ cmd: 'pingresp' })
    await quiet()
  }

  /** Answers all markers, also those to come. */
  async free(): Promise<void> {
    this.connection.respondsToPings = true
    await this.answer()
  }
}

/** What became of a publish so far; undefined while it has not settled. */
export class Watched {
  outcome: PublishOutcome | undefined
  settlements = 0

  constructor(readonly promise: Promise<PublishOutcome>) {
    void promise.then(outcome => {
      this.outcome = outcome
      this.settlements += 1
    })
  }
}

/** Payloads of the publishes that arrived, as numbers, without what filled the window. */
export function arrived(connection: PeerConnection): number[] {
  return connection.received.flatMap(packet =>
    packet.cmd === 'publish' && packet.topic !== 'filler' ? [Number(packet.payload.toString())] : [],
  )
}

export const droppedAs = (reason: string) => ({ status: 'dropped', reason })
