import { afterEach, describe, expect, it, vi } from 'vitest'
import { healthOf, RecentDrops } from '../../../src/client/report.js'
import { MqttError } from '../../../src/core/errors.js'

const CONNECTED = {
  status: 'connected',
  attempt: 1,
  session: {
    broker: 'mqtt://localhost',
    protocolVersion: 4,
    sessionPresent: false,
    limits: {
      receiveMaximum: 65_535,
      maximumQoS: 2,
      retainAvailable: true,
      maximumPacketSize: Number.POSITIVE_INFINITY,
      topicAliasMaximum: 0,
      wildcardSubscriptionAvailable: true,
      subscriptionIdentifiersAvailable: false,
      sharedSubscriptionAvailable: true,
    },
  },
} as const

const WELL = {
  connection: CONNECTED,
  refusedSubscriptions: [],
  unansweredSubscriptions: [],
  refusedPublish: undefined,
  isAcknowledgementLate: false,
  heldUp: undefined,
  dropped: { inbound: 0, outbound: 0 },
  storeProblems: [],
  hasStarted: true,
  isDraining: false,
}

describe('the health of a session', () => {
  it('is up without reasons', () => {
    expect(healthOf(WELL)).toEqual({
      state: 'up',
      connection: CONNECTED,
      reasons: [],
      refusedSubscriptions: [],
      unansweredSubscriptions: [],
      droppedInLastMinute: { inbound: 0, outbound: 0 },
      hasStarted: true,
      isDraining: false,
    })
  })

  it('is down, with the cause, while there is no connection', () => {
    const cause = new MqttError('CONNECT_FAILED', 'connect ECONNREFUSED')
    const connection = { status: 'waiting', attempt: 3, delayMs: 1_000, cause } as const
    const health = healthOf({ ...WELL, connection })
    expect(health).toMatchObject({
      state: 'down',
      reasons: ['the connection is waiting: connect ECONNREFUSED'],
    })
    expect(JSON.parse(JSON.stringify(health))).toMatchObject({
      connection: { status: 'waiting', cause: { code: 'CONNECT_FAILED', message: 'connect ECONNREFUSED' } },
    })
  })

  it('names three of the refused subscriptions', () => {
    const health = healthOf({ ...WELL, refusedSubscriptions: ['a', 'b', 'c', 'd'] })
    expect(health).toMatchObject({
      state: 'degraded',
      reasons: ['the broker refuses subscriptions (4): a, b, c, …'],
      refusedSubscriptions: ['a', 'b', 'c', 'd'],
    })
  })

  it('shortens long names of subscriptions, and keeps each reason on one line', () => {
    const names = ['a\nb', 'x'.repeat(65_000), 'y'.repeat(65_000), 'z']
    const [reason = ''] = healthOf({ ...WELL, refusedSubscriptions: names }).reasons
    expect(reason).toMatch(/^the broker refuses subscriptions \(4\): a b, x+…, y+…, …$/)
    expect(reason.length).toBeLessThan(1_200)
  })

  it.each([
    [60_000, 'degraded'],
    [60_001, 'up'],
  ] as const)('with a publish refused %d ms ago is %s', (ageMs, state) => {
    const refusedPublish = { reasonCode: 0x87, ageMs }
    expect(healthOf({ ...WELL, refusedPublish }).state).toBe(state)
  })

  it('has every reason at once', () => {
    const health = healthOf({
      connection: { status: 'idle' },
      refusedSubscriptions: ['a'],
      unansweredSubscriptions: ['b'],
      refusedPublish: { reasonCode: 0x97, ageMs: 1 },
      isAcknowledgementLate: true,
      heldUp: { topic: 'a/b', patterns: ['a/+'], ageMs: 12_000, behind: 7 },
      dropped: { inbound: 3, outbound: 4 },
      storeProblems: ['the store is 90 % full: 9 messages'],
      hasStarted: false,
      isDraining: true,
    })
    expect(health.state).toBe('down')
    expect(health.reasons).toEqual([
      'the connection is idle',
      'the broker refuses subscriptions (1): a',
      'the broker has not responded to subscriptions (1): b',
      'the broker refused publishes in the last minute: 0x97 Quota exceeded',
      'the broker has not acknowledged a publish for half of outbound.ackTimeoutMs',
      'the handler of a/+ holds back the acknowledgements of 7 messages',
      'publishes dropped in the last minute: 4',
      'received messages dropped in the last minute: 3',
      'the store is 90 % full: 9 messages',
    ])
  })
})

describe('the drops of the last minute', () => {
  afterEach(() => {
    vi.useRealTimers()
  })

  it('count lost messages in both directions, and none that the application dropped itself', () => {
    const drops = new RecentDrops()
    for (const reason of ['offline', 'backlog', 'superseded', 'aborted', 'closed'] as const)
      drops.note({ type: 'publish-dropped', reason })
    drops.note({ type: 'inbound-dropped' })
    drops.note({ type: 'drops-over' })
    expect(drops.counts).toEqual({ inbound: 1, outbound: 2 })
  })

  it('are forgotten after a minute', () => {
    vi.useFakeTimers()
    const drops = new RecentDrops()
    drops.note({ type: 'publish-dropped', reason: 'offline' })
    vi.advanceTimersByTime(54_000)
    expect(drops.counts.outbound).toBe(1)
    vi.advanceTimersByTime(6_000)
    expect(drops.counts.outbound).toBe(0)
  })
})
