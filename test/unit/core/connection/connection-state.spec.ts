import fc from 'fast-check'
import { describe, expect, it, vi } from 'vitest'
import {
  type ConnectedSession,
  type ConnectionEffect,
  type ConnectionEvent,
  type ConnectionMachine,
  type ConnectionRules,
  type ConnectionState,
  newMachine,
  type ProtocolVersion,
  transition,
} from '../../../../src/core/connection/connection-state.js'
import { verdictOf } from '../../../../src/core/connection/reconnect-rules.js'
import { MqttError } from '../../../../src/core/errors.js'
import { brokerLimits } from '../../../../src/core/protocol/packets.js'

type Status = ConnectionState['status']
type EventType = ConnectionEvent['type']

const RESET_AFTER_MS = 10_000
const AUTO: ConnectionRules = {
  protocolVersion: 'auto',
  failFast: false,
  resetAfterMs: RESET_AFTER_MS,
  targets: 1,
  delayMs: round => round * 100,
  verdict: verdictOf,
}
const FAIL_FAST: ConnectionRules = { ...AUTO, failFast: true }
const THREE: ConnectionRules = { ...AUTO, targets: 3 }

const withCode = (code: string) => Object.assign(new Error(code), { code })
const refused = (reasonCode: number, serverReference?: string) =>
  new MqttError('CONNECT_REFUSED', 'refused', {
    reasonCode,
    ...(serverReference === undefined ? {} : { serverReference }),
  })
const disconnected = (reasonCode: number, serverReference?: string) =>
  new MqttError('CONNECTION_LOST', 'the broker sent DISCONNECT', {
    reasonCode,
    ...(serverReference === undefined ? {} : { serverReference }),
  })

const OTHER = 'other.example'
const THIRD = 'third.example:1884'

/** Ends of an attempt. */
const FAILURES = {
  'hang-up before CONNACK': new MqttError('CONNECT_FAILED', 'closed before CONNACK'),
  'reset before CONNACK': new MqttError('CONNECT_FAILED', 'reset', { cause: withCode('ECONNRESET') }),
  'connection refused': new MqttError('CONNECT_FAILED', 'refused', { cause: withCode('ECONNREFUSED') }),
  'no CONNACK in time': new MqttError('CONNECT_FAILED', 'timeout', { cause: new Error('connack timeout') }),
  'CONNACK 0x84': refused(0x84),
  'CONNACK 0x01': refused(0x01),
  'CONNACK 0x87': refused(0x87),
  'CONNACK 0x05': refused(0x05),
  'CONNACK 0x8A': refused(0x8a),
  'CONNACK 0x9C to another': refused(0x9c, OTHER),
  'CONNACK 0x9C to a third': refused(0x9c, THIRD),
  'CONNACK 0x9D to nowhere': refused(0x9d),
} as const

/** Ends of a connection. */
const LOSSES = {
  'connection lost': new MqttError('CONNECTION_LOST', 'gone'),
  'DISCONNECT 0x00': disconnected(0x00),
  'DISCONNECT 0x8B': disconnected(0x8b),
  'DISCONNECT 0x8E': disconnected(0x8e),
  'DISCONNECT 0xA0': disconnected(0xa0),
  'DISCONNECT 0x9D to another': disconnected(0x9d, OTHER),
  'DISCONNECT 0x9D to a third': disconnected(0x9d, THIRD),
  'DISCONNECT 0x9C to nowhere': disconnected(0x9c),
} as const

const CAUSES = { ...FAILURES, ...LOSSES }
type Cause = keyof typeof CAUSES

const session = (protocolVersion: ProtocolVersion = 5): ConnectedSession => ({
  broker: 'mqtt://broker',
  protocolVersion,
  sessionPresent: false,
  limits: brokerLimits(protocolVersion),
})

const open: ConnectionEvent = { type: 'open' }
const close: ConnectionEvent = { type: 'close' }
const replace: ConnectionEvent = { type: 'replace' }
const delayElapsed: ConnectionEvent = { type: 'delay-elapsed' }
const accepted = (nowMs = 0): ConnectionEvent => ({ type: 'accepted', session: session(), nowMs })
const lost = (cause: Cause = 'connection refused', nowMs = 0): ConnectionEvent => ({
  type: 'lost',
  cause: CAUSES[cause],
  nowMs,
})
/** The attempt fails, and the delay passes. */
const retried = (cause: Cause = 'connection refused', nowMs = 0) =>
  [lost(cause, nowMs), delayElapsed] as const

const EVENTS: Readonly<Record<EventType, ConnectionEvent>> = {
  open,
  accepted: accepted(),
  lost: lost(),
  'delay-elapsed': delayElapsed,
  close,
  replace,
}

type Dial = Extract<ConnectionEffect, { type: 'dial' }>
const dialOf = (target: number, protocolVersion: ProtocolVersion = 5, reference?: string): Dial => ({
  type: 'dial',
  target,
  reference,
  protocolVersion,
})

/** Where the events lead, and every effect on the way. */
function run(events: readonly ConnectionEvent[], rules = AUTO, start = newMachine(rules)) {
  const effects: ConnectionEffect[] = []
  let machine = start
  for (const event of events) {
    const next = transition(machine, event, rules)
    machine = next.machine
    effects.push(...next.effects)
  }
  const dials = effects.filter(effect => effect.type === 'dial')
  return {
    machine,
    state: machine.state,
    effects,
    dials,
    versions: dials.map(dial => dial.protocolVersion),
    targets: dials.map(dial => dial.reference ?? dial.target),
    delays: effects.flatMap(effect => (effect.type === 'wait' ? [effect.delayMs] : [])),
  }
}

const MACHINES: Readonly<Record<Status, ConnectionMachine>> = {
  idle: newMachine(AUTO),
  connecting: run([open]).machine,
  connected: run([open, accepted()]).machine,
  waiting: run([open, lost()]).machine,
  closing: run([open, accepted(), close]).machine,
  closed: run([open, accepted(), close, lost('connection lost')]).machine,
}

describe('every state handles every event', () => {
  const stays = undefined

  const TABLE: Readonly<
    Record<Status, Record<EventType, readonly [Status, ...ConnectionEffect[]] | undefined>>
  > = {
    idle: {
      open: ['connecting', dialOf(0)],
      accepted: stays,
      lost: stays,
      'delay-elapsed': stays,
      close: ['closed'],
      replace: stays,
    },
    connecting: {
      open: stays,
      accepted: ['connected'],
      lost: ['waiting', { type: 'wait', delayMs: 100 }],
      'delay-elapsed': stays,
      close: ['closing', { type: 'abort' }],
      replace: stays,
    },
    connected: {
      open: stays,
      accepted: stays,
      lost: ['waiting', { type: 'wait', delayMs: 100 }],
      'delay-elapsed': stays,
      close: ['closing', { type: 'disconnect' }],
      replace: ['connected', { type: 'disconnect' }],
    },
    waiting: {
      open: stays,
      accepted: stays,
      lost: stays,
      'delay-elapsed': ['connecting', dialOf(0)],
      close: ['closed', { type: 'cancel-wait' }],
      replace: stays,
    },
    closing: {
      open: stays,
      accepted: stays,
      lost: ['closed'],
      'delay-elapsed': stays,
      close: stays,
      replace: stays,
    },
    closed: {
      open: stays,
      accepted: stays,
      lost: stays,
      'delay-elapsed': stays,
      close: stays,
      replace: stays,
    },
  }

  const pairs = Object.values(MACHINES).flatMap(machine =>
    Object.values(EVENTS).map(event => ({
      from: machine.state.status,
      on: event.type,
      to: TABLE[machine.state.status][event.type]?.[0] ?? 'the same',
      machine,
      event,
      expected: TABLE[machine.state.status][event.type],
    })),
  )

  it('and the table is complete', () => {
    expect(pairs).toHaveLength(6 * 6)
    expect(Object.entries(MACHINES).every(([status, { state }]) => status === state.status)).toBe(true)
  })

  it.each(pairs)('$from, on $on: $to', ({ machine, event, expected }) => {
    const next = transition(machine, event, AUTO)
    if (expected === undefined) {
      expect(next.machine).toBe(machine)
      expect(next.effects).toEqual([])
    } else {
      const [status, ...effects] = expected
      expect(next.machine.state.status).toBe(status)
      expect(next.effects).toEqual(effects)
    }
  })

  it('does not change its input', () => {
    for (const { state, progress } of Object.values(MACHINES)) {
      const frozen = Object.freeze({
        state: Object.freeze({ ...state }),
        progress: Object.freeze({ ...progress }),
      })
      for (const event of Object.values(EVENTS)) transition(frozen, event, AUTO)
      for (const cause of Object.values(CAUSES))
        transition(frozen, { type: 'lost', cause, nowMs: RESET_AFTER_MS }, THREE)
      expect(frozen).toEqual({ state, progress })
    }
  })
})

describe('the properties of the states', () => {
  it('connecting after a delay: no cause, because waiting had it', () => {
    expect(run([open]).state).toEqual({ status: 'connecting', attempt: 1 })
    expect(run([open, lost(), delayElapsed]).state).toEqual({ status: 'connecting', attempt: 2 })
  })

  it.each([
    ['the broker refuses MQTT 5', [open], 'CONNACK 0x84'],
    ['the broker refuses the attempt and names another', [open], 'CONNACK 0x9C to another'],
    ['the broker ends the connection and names another', [open, accepted()], 'DISCONNECT 0x9D to another'],
  ] as const)('connecting without a delay, as %s: the cause', (_what, before, cause) => {
    const { state } = run([...before, lost(cause)])
    expect(state.status).toBe('connecting')
    expect(state.status === 'connecting' && state.cause).toBe(CAUSES[cause])
  })

  it('connected: the session of CONNACK and the attempt that it took', () => {
    const granted = session(4)
    const { state } = run([open, ...retried(), { type: 'accepted', session: granted, nowMs: 1_234 }])
    expect(state).toEqual({ status: 'connected', attempt: 2, session: granted })
    expect(state.status === 'connected' && state.session).toBe(granted)
  })

  it('waiting: the delay and the cause', () => {
    const cause = CAUSES['CONNACK 0x87']
    expect(run([open, lost('CONNACK 0x87')]).state).toEqual({
      status: 'waiting',
      attempt: 1,
      delayMs: 100,
      cause,
    })
  })

  it('closing: nothing', () => {
    expect(run([open, close]).state).toEqual({ status: 'closing' })
    expect(run([open, accepted(), close]).state).toEqual({ status: 'closing' })
  })

  it('closed by the application: no cause, whatever the end reports', () => {
    for (const events of [
      [close],
      [open, close, lost()],
      [open, close, lost('CONNACK 0x8A')],
      [open, accepted(), close, lost()],
      [open, accepted(), close, lost('DISCONNECT 0x8E')],
      [open, accepted(), close, lost('DISCONNECT 0x9D to another')],
      [open, lost(), close],
    ]) {
      expect(run(events, FAIL_FAST).effects.some(effect => effect.type === 'wait')).toBe(false)
      expect(run(events).state).toEqual({ status: 'closed' })
    }
  })

  it.each([
    ['closed by the application', [lost(), delayElapsed, accepted(), close, lost('connection lost')]],
    ['stopped', [accepted(), lost('DISCONNECT 0x8E')]],
    [
      'closed at a Server Reference',
      [lost('CONNACK 0x9C to another'), accepted(), close, lost('connection lost')],
    ],
    ['closed with MQTT 3.1.1', [lost('CONNACK 0x84'), accepted(), close, lost('connection lost')]],
    ['closed while it waits', [lost(), delayElapsed, lost(), close]],
  ] as const)('stays closed after it was %s, even if it is opened again', (_how, events) => {
    const closed = run([open, ...events], THREE).machine
    expect(closed.state.status).toBe('closed')
    expect(run([open, ...events, open, delayElapsed, accepted()], THREE).machine).toEqual(closed)
  })
})

describe('the number of an attempt', () => {
  const attempts = (events: readonly ConnectionEvent[], rules = AUTO): number[] => {
    let machine = newMachine(rules)
    return events.flatMap(event => {
      machine = transition(machine, event, rules).machine
      return 'attempt' in machine.state ? [machine.state.attempt] : []
    })
  }

  it('counts from 1 since the start; while waiting it is the failed attempt', () => {
    expect(attempts([open, ...retried(), ...retried(), accepted()])).toEqual([1, 1, 2, 2, 3, 3])
  })

  it('is 0 while waiting after a lost connection, and counts from 1 again', () => {
    const events = [open, ...retried(), accepted(), ...retried('connection lost'), ...retried(), accepted()]
    expect(attempts(events)).toEqual([1, 1, 2, 2, 0, 1, 1, 2, 2])
  })

  it('counts from 1 again even after a connection that did not last, while the delay grows', () => {
    const flap = [accepted(), ...retried('connection lost')]
    expect(attempts([open, ...flap, ...flap])).toEqual([1, 1, 0, 1, 1, 0, 1])
    expect(run([open, ...flap, ...flap]).delays).toEqual([100, 200])
  })

  it('counts over all targets', () => {
    expect(attempts([open, ...retried(), ...retried(), ...retried()], THREE)).toEqual([1, 1, 2, 2, 3, 3, 4])
  })

  it('stays the same for the fallback to 3.1.1', () => {
    expect(attempts([open, ...retried(), lost('CONNACK 0x84'), lost()])).toEqual([1, 1, 2, 2, 2])
  })

  it('is 1 after a redirect of an established connection', () => {
    expect(attempts([open, ...retried(), accepted(), lost('DISCONNECT 0x9D to another')])).toEqual([
      1, 1, 2, 2, 1,
    ])
  })

  it('does not start again after a redirect of a refused attempt', () => {
    const [before = 0, after = 0] = attempts([
      open,
      ...retried(),
      ...retried(),
      lost('CONNACK 0x9C to another'),
    ]).slice(-2)
    expect(before).toBe(3)
    expect(after).toBeGreaterThanOrEqual(before)
  })
})

describe('the delay between attempts', () => {
  it('is requested with the round of failures, the cause and the previous delay', () => {
    const delayMs = vi.fn((round: number) => round * 100)
    run([open, ...retried(), ...retried('CONNACK 0x87'), lost('CONNACK 0x05')], { ...AUTO, delayMs })
    expect(delayMs.mock.calls).toEqual([
      [1, CAUSES['connection refused'], 0],
      [2, CAUSES['CONNACK 0x87'], 100],
      [3, CAUSES['CONNACK 0x05'], 200],
    ])
  })

  it('is in the state and in the effect', () => {
    const { state, effects } = run([open, lost()], { ...AUTO, delayMs: () => 7 })
    expect(state).toMatchObject({ status: 'waiting', delayMs: 7 })
    expect(effects.at(-1)).toEqual({ type: 'wait', delayMs: 7 })
  })

  it('of zero still counts the attempts', () => {
    const rules = { ...FAIL_FAST, delayMs: () => 0 }
    const { state } = run(
      [open, accepted(), ...retried('connection lost'), ...retried(), ...retried()],
      rules,
    )
    expect(state).toEqual({ status: 'connecting', attempt: 3 })
  })

  it('continues forever', () => {
    const failures = Array.from({ length: 1_000 }, () => retried()).flat()
    expect(run([open, ...failures]).state).toEqual({ status: 'connecting', attempt: 1_001 })
    expect(run([open, ...failures]).delays.at(-1)).toBe(100_000)
  })

  it.each([
    [1, [100, 200, 300, 400, 500, 600, 700]],
    [2, [100, 100, 200, 200, 300, 300, 400]],
    [3, [100, 100, 100, 200, 200, 200, 300]],
    [7, [100, 100, 100, 100, 100, 100, 100]],
  ])('with %i URLs grows after a full round: %j', (targets, delays) => {
    const failures = Array.from({ length: 7 }, () => retried()).flat()
    expect(run([open, ...failures], { ...AUTO, targets }).delays).toEqual(delays)
  })

  it('that grows from the previous one also grows once per round', () => {
    const delayMs = vi.fn((_round: number, _cause: MqttError, previousMs: number) => previousMs * 3 || 1)
    const { delays } = run([open, ...Array.from({ length: 6 }, () => retried()).flat()], {
      ...AUTO,
      targets: 2,
      delayMs,
    })
    expect(delays).toEqual([1, 1, 3, 3, 9, 9])
  })
})

describe('the count of failures', () => {
  const failTwiceThenConnect = [open, ...retried(), ...retried(), accepted(1_000)]

  it.each([
    [0, 300],
    [RESET_AFTER_MS - 1, 300],
    [RESET_AFTER_MS, 100],
    [RESET_AFTER_MS + 1, 100],
  ])('of a connection that lasted %i ms: the next delay is %i', (lastedMs, delayMs) => {
    const { state } = run([...failTwiceThenConnect, lost('connection lost', 1_000 + lastedMs)])
    expect(state).toMatchObject({ status: 'waiting', attempt: 0, delayMs })
  })

  it('starts from the first delay again after a connection that lasted, also for the previous delay', () => {
    const delayMs = vi.fn(() => 7)
    run([...failTwiceThenConnect, lost('connection lost', 1_000 + RESET_AFTER_MS)], { ...AUTO, delayMs })
    expect(delayMs).toHaveBeenLastCalledWith(1, CAUSES['connection lost'], 0)
  })

  it('keeps the previous delay after a connection that did not last', () => {
    const delayMs = vi.fn(() => 7)
    run([...failTwiceThenConnect, lost('connection lost', 1_000)], { ...AUTO, delayMs })
    expect(delayMs).toHaveBeenLastCalledWith(3, CAUSES['connection lost'], 7)
  })

  it('grows while a broker accepts and drops again and again', () => {
    const flaps = Array.from({ length: 5 }, () => [accepted(0), ...retried('connection lost', 1)]).flat()
    expect(run([open, ...flaps]).delays).toEqual([100, 200, 300, 400, 500])
  })

  it('is measured from the last CONNACK, not from the first', () => {
    const flaps = [accepted(0), ...retried('connection lost', 1), accepted(RESET_AFTER_MS)]
    expect(run([open, ...flaps, lost('connection lost', RESET_AFTER_MS + 1)]).delays).toEqual([100, 200])
  })

  it('counts every connection as lasting with resetAfterMs 0', () => {
    const { state } = run([...failTwiceThenConnect, lost('connection lost', 1_000)], {
      ...AUTO,
      resetAfterMs: 0,
    })
    expect(state).toMatchObject({ delayMs: 100 })
  })

  it('is reset after a connection that lasted, even with a redirect', () => {
    const events = [
      ...failTwiceThenConnect,
      lost('DISCONNECT 0x9D to another', 1_000 + RESET_AFTER_MS),
      accepted(20_000),
      lost('connection lost', 20_000 + RESET_AFTER_MS),
    ]
    expect(run(events).delays).toEqual([100, 200, 100])
  })
})

describe('several URLs', () => {
  const round = [...retried(), ...retried(), ...retried()]

  it('are tried in order, round after round', () => {
    expect(run([open, ...round, ...round], THREE).targets).toEqual([0, 1, 2, 0, 1, 2, 0])
  })

  it('start with the one that worked', () => {
    const events = [open, ...retried(), accepted(), ...retried('connection lost')]
    expect(run(events, THREE).targets).toEqual([0, 1, 1])
    expect(run([...events, accepted(), ...retried('connection lost')], THREE).targets).toEqual([0, 1, 1, 1])
  })

  it('continue after the one that worked, and return to it', () => {
    const events = [open, ...retried(), accepted(), ...retried('connection lost'), ...round]
    expect(run(events, THREE).targets).toEqual([0, 1, 1, 2, 0, 1])
  })

  it.each(['connection refused', 'no CONNACK in time', 'CONNACK 0x87', 'CONNACK 0x9D to nowhere'] as const)(
    'continue with the next one after %s',
    cause => {
      expect(run([open, ...retried(cause)], THREE).targets).toEqual([0, 1])
    },
  )

  it('each start with MQTT 5, because the version of one says nothing about the next', () => {
    const events = [open, lost('CONNACK 0x84'), accepted(), ...retried('connection lost'), ...retried()]
    expect(run(events, THREE).dials).toEqual([dialOf(0, 5), dialOf(0, 4), dialOf(0, 4), dialOf(1, 5)])
  })

  it('are each tried with MQTT 3.1.1 if they refuse MQTT 5', () => {
    const events = [open, lost('CONNACK 0x84'), ...retried(), lost('hang-up before CONNACK'), ...retried()]
    expect(run(events, THREE).dials).toEqual([
      dialOf(0, 5),
      dialOf(0, 4),
      dialOf(1, 5),
      dialOf(1, 4),
      dialOf(2, 5),
    ])
  })

  it('are not tried after a stop', () => {
    const { state, targets } = run([open, lost('CONNACK 0x8A')], THREE)
    expect(state).toEqual({ status: 'closed', cause: CAUSES['CONNACK 0x8A'] })
    expect(targets).toEqual([0])
  })
})

describe('the verdict', () => {
  it('is requested with the cause of every end, but not while closing', () => {
    const verdict = vi.fn(() => 'retry' as const)
    run([open, ...retried(), accepted(), ...retried('connection lost'), close, lost('CONNACK 0x87')], {
      ...AUTO,
      verdict,
    })
    expect(verdict.mock.calls).toEqual([[CAUSES['connection refused']], [CAUSES['connection lost']]])
  })

  describe('stop', () => {
    it.each([
      ['connecting', [open], 'CONNACK 0x8A'],
      ['connecting again', [open, ...retried()], 'CONNACK 0x8A'],
      ['connecting after a connection', [open, accepted(), ...retried('connection lost')], 'CONNACK 0x8A'],
      ['connected', [open, accepted()], 'DISCONNECT 0x00'],
      ['connected', [open, accepted()], 'DISCONNECT 0x8E'],
    ] as const)('closes with the cause while %s, without an effect', (_what, before, cause) => {
      const start = run(before).machine
      const { machine, effects } = transition(start, lost(cause, RESET_AFTER_MS), AUTO)
      expect(machine.state).toEqual({ status: 'closed', cause: CAUSES[cause] })
      expect(effects).toEqual([])
    })

    it('may be returned by the application for any cause', () => {
      const rules = { ...AUTO, verdict: () => 'stop' as const }
      expect(run([open, lost()], rules).state).toEqual({
        status: 'closed',
        cause: CAUSES['connection refused'],
      })
      expect(run([open, accepted(), lost('connection lost')], rules).state).toEqual({
        status: 'closed',
        cause: CAUSES['connection lost'],
      })
    })

    it('may be overridden by the application', () => {
      const rules = { ...AUTO, verdict: () => 'retry' as const }
      expect(run([open, accepted(), lost('DISCONNECT 0x8E')], rules).state.status).toBe('waiting')
      expect(run([open, lost('CONNACK 0x8A')], rules).state.status).toBe('waiting')
    })
  })

  describe.each(['retry', 'retry-with-fresh-credentials'] as const)('%s', verdict => {
    const rules = { ...AUTO, verdict: () => verdict }

    it('waits after a failed attempt and after a lost connection, and connects again', () => {
      expect(run([open, lost()], rules).state).toMatchObject({ status: 'waiting', attempt: 1 })
      expect(run([open, accepted(), lost('connection lost')], rules).state).toMatchObject({
        status: 'waiting',
        attempt: 0,
      })
      expect(run([open, ...retried(), accepted(), ...retried('connection lost')], rules).dials).toEqual([
        dialOf(0),
        dialOf(0),
        dialOf(0),
      ])
    })
  })
})

describe('go elsewhere', () => {
  const rules = AUTO
  const sentOn = [open, lost('CONNACK 0x9C to another')]
  const moved = [open, accepted(), lost('DISCONNECT 0x9D to another')]

  it.each([
    ['a refused attempt', sentOn],
    ['a connection', moved],
  ])('connects to the Server Reference of %s at once', (_what, events) => {
    const { state, effects } = run(events)
    expect(state.status).toBe('connecting')
    expect(effects).toEqual([dialOf(0), dialOf(0, 5, OTHER)])
  })

  it('remembers which target named the reference', () => {
    expect(run([open, ...retried(), lost('CONNACK 0x9C to another')], THREE).dials.at(-1)).toEqual(
      dialOf(1, 5, OTHER),
    )
  })

  it.each([
    ['connecting', [open], 'CONNACK 0x9D to nowhere'],
    ['connected', [open, accepted()], 'DISCONNECT 0x9C to nowhere'],
  ] as const)('waits while %s without a Server Reference', (_what, before, cause) => {
    const { state, targets } = run([...before, ...retried(cause)])
    expect(state).toMatchObject({ status: 'connecting' })
    expect(targets).toEqual([0, 0])
  })

  it.each([
    ['connecting', [open], 'connection refused'],
    ['connected', [open, accepted()], 'connection lost'],
  ] as const)(
    'waits while %s if the application requests a redirect without a Server Reference',
    (_what, before, cause) => {
      const { state } = run([...before, lost(cause)], { ...AUTO, verdict: () => 'go-elsewhere' })
      expect(state.status).toBe('waiting')
    },
  )

  it.each(['connection refused', 'no CONNACK in time', 'CONNACK 0x87', 'CONNACK 0x9D to nowhere'] as const)(
    'returns to the URL after a delay if the reference fails: %s',
    cause => {
      for (const events of [sentOn, moved]) {
        const { effects, targets } = run([...events, ...retried(cause)], rules)
        expect(effects.map(effect => effect.type)).toEqual(['dial', 'dial', 'wait', 'dial'])
        expect(targets).toEqual([0, OTHER, 0])
      }
    },
  )

  it('stops if the reference stops the connection', () => {
    expect(run([...sentOn, lost('CONNACK 0x8A')]).state).toEqual({
      status: 'closed',
      cause: CAUSES['CONNACK 0x8A'],
    })
  })

  it('stays with a reference that worked, and returns to the URL when it fails', () => {
    const events = [...moved, accepted(), ...retried('connection lost'), ...retried()]
    expect(run(events).targets).toEqual([0, OTHER, OTHER, 0])
  })

  it('returns to the URL permanently: the next failure does not lead to the reference again', () => {
    expect(run([...moved, ...retried(), ...retried(), ...retried()]).targets).toEqual([0, OTHER, 0, 0, 0])
  })

  describe('without redirect loops', () => {
    it('returns to the URL after a delay if a reference is refused with another one', () => {
      const { effects, targets } = run([...sentOn, ...retried('CONNACK 0x9C to a third')])
      expect(effects.map(effect => effect.type)).toEqual(['dial', 'dial', 'wait', 'dial'])
      expect(targets).toEqual([0, OTHER, 0])
    })

    it('waits longer in each loop if two brokers refuse with a redirect to each other', () => {
      const circle = [lost('CONNACK 0x9C to another'), ...retried('CONNACK 0x9C to a third')]
      const { targets, delays } = run([open, ...circle, ...circle, ...circle])
      expect(targets).toEqual([0, OTHER, 0, OTHER, 0, OTHER, 0])
      expect(delays).toHaveLength(3)
      expect(delays).toEqual(delays.toSorted((a, b) => a - b))
      expect(new Set(delays).size).toBe(3)
    })

    it('waits before it follows a second reference of a connection that did not last', () => {
      const { effects, targets } = run([
        ...moved,
        accepted(1),
        ...retried('DISCONNECT 0x9D to a third', RESET_AFTER_MS),
      ])
      expect(effects.map(effect => effect.type)).toEqual(['dial', 'dial', 'wait', 'dial'])
      expect(targets).toEqual([0, OTHER, THIRD])
    })

    it('follows a second reference at once after a lasting connection', () => {
      const { effects, targets } = run([
        ...moved,
        accepted(1),
        lost('DISCONNECT 0x9D to a third', 1 + RESET_AFTER_MS),
      ])
      expect(effects.map(effect => effect.type)).toEqual(['dial', 'dial', 'dial'])
      expect(targets).toEqual([0, OTHER, THIRD])
    })

    it('waits longer each time if two brokers accept and redirect at once', () => {
      const pass = [accepted(), ...retried('DISCONNECT 0x9D to a third')]
      const { delays } = run([...moved, ...pass, ...pass, ...pass])
      expect(delays).toHaveLength(3)
      expect(new Set(delays).size).toBe(3)
      expect(delays).toEqual(delays.toSorted((a, b) => a - b))
    })
  })

  it('still tries the other URLs if the reference is down', () => {
    const events = [lost('CONNACK 0x9C to another'), ...retried()]
    const { targets } = run([open, ...events, ...events, ...events], THREE)
    expect(targets).toContain(1)
    expect(targets).toContain(2)
  })

  it('determines the version again, at the reference and at the URL', () => {
    const known4 = [open, lost('CONNACK 0x84'), accepted()]
    const events = [...known4, lost('DISCONNECT 0x9D to another'), lost('CONNACK 0x84'), ...retried()]
    expect(run(events).dials).toEqual([
      dialOf(0, 5),
      dialOf(0, 4),
      dialOf(0, 5, OTHER),
      dialOf(0, 4, OTHER),
      dialOf(0, 5),
    ])
  })

  it.each([4, 5] as const)('uses only version %i if it is set', protocolVersion => {
    const events = [...sentOn, ...retried(), accepted(), lost('DISCONNECT 0x9D to another')]
    expect(run(events, { ...AUTO, protocolVersion }).versions).toEqual([
      protocolVersion,
      protocolVersion,
      protocolVersion,
      protocolVersion,
    ])
  })
})

describe('fail-fast', () => {
  it.each([
    'connection refused',
    'no CONNACK in time',
    'CONNACK 0x87',
    'CONNACK 0x05',
    'CONNACK 0x8A',
    'CONNACK 0x9D to nowhere',
  ] as const)('closes with the cause when the only URL fails: %s', cause => {
    const { state, effects } = run([open, lost(cause)], FAIL_FAST)
    expect(state).toEqual({ status: 'closed', cause: CAUSES[cause] })
    expect(effects).toEqual([dialOf(0)])
  })

  it.each([1, 2, 3, 5])('tries each of %i URLs once, and closes with the last cause', targets => {
    const rules = { ...FAIL_FAST, targets }
    const earlier = Array.from({ length: targets - 1 }, () => retried()).flat()
    expect(run([open, ...earlier], rules).state.status).toBe('connecting')
    const { state, targets: dialled } = run([open, ...earlier, lost('CONNACK 0x87')], rules)
    expect(state).toEqual({ status: 'closed', cause: CAUSES['CONNACK 0x87'] })
    expect(dialled).toEqual(Array.from({ length: targets }, (_, target) => target))
  })

  it('tries 3.1.1 first, and then closes with the second cause', () => {
    const events = [open, lost('hang-up before CONNACK'), lost('connection refused')]
    const { state, effects } = run(events, FAIL_FAST)
    expect(state).toEqual({ status: 'closed', cause: CAUSES['connection refused'] })
    expect(effects).toEqual([dialOf(0, 5), dialOf(0, 4)])
  })

  it('tries the Server Reference first, and then closes with the second cause', () => {
    const events = [open, lost('CONNACK 0x9C to another'), lost('connection refused')]
    const { state, targets } = run(events, FAIL_FAST)
    expect(state).toEqual({ status: 'closed', cause: CAUSES['connection refused'] })
    expect(targets).toEqual([0, OTHER])
  })

  it('tries every URL before it closes, even if one of them redirects to a broker that is down', () => {
    const rules = { ...FAIL_FAST, targets: 2 }
    const { state, targets } = run([open, lost('CONNACK 0x9C to another'), ...retried()], rules)
    expect(state.status).toBe('connecting')
    expect(targets).toEqual([0, OTHER, 1])
  })

  it('does not apply after an established connection, however short', () => {
    const events = [open, accepted(), ...retried('connection lost'), ...retried(), lost()]
    expect(run(events, FAIL_FAST).state).toMatchObject({ status: 'waiting', attempt: 2 })
  })

  it('does not apply after a connection to a later URL', () => {
    const rules = { ...FAIL_FAST, targets: 2 }
    const events = [open, ...retried(), accepted(), ...retried('connection lost'), ...retried(), ...retried()]
    expect(run(events, rules).state.status).toBe('connecting')
  })
})

describe('the protocol version', () => {
  type After = readonly [status: Status, versions: readonly ProtocolVersion[]]

  const FIRST_ATTEMPT: Readonly<Record<keyof typeof FAILURES, After>> = {
    'CONNACK 0x84': ['connecting', [5, 4]],
    'CONNACK 0x01': ['connecting', [5, 4]],
    'hang-up before CONNACK': ['connecting', [5, 4]],
    'reset before CONNACK': ['connecting', [5, 4]],
    'connection refused': ['waiting', [5]],
    'no CONNACK in time': ['waiting', [5]],
    'CONNACK 0x87': ['waiting', [5]],
    'CONNACK 0x05': ['waiting', [5]],
    'CONNACK 0x8A': ['closed', [5]],
    'CONNACK 0x9C to another': ['connecting', [5, 5]],
    'CONNACK 0x9C to a third': ['connecting', [5, 5]],
    'CONNACK 0x9D to nowhere': ['waiting', [5]],
  }

  const causes = Object.entries(FIRST_ATTEMPT).map(([name, [status, versions]]) => ({
    name,
    status,
    versions,
    cause: Object.entries(FAILURES).find(([other]) => other === name)?.[1] ?? CAUSES['connection lost'],
  }))

  it.each(causes)('auto: after $name in the first attempt it has tried $versions, and is $status', one => {
    const { state, versions } = run([open, { type: 'lost', cause: one.cause, nowMs: 0 }])
    expect(versions).toEqual(one.versions)
    expect(state.status).toBe(one.status)
  })

  it('auto: the fallback has no delay, and uses the same address', () => {
    const { effects } = run([open, ...retried(), lost('CONNACK 0x84')], THREE)
    expect(effects.slice(-2)).toEqual([dialOf(1, 5), dialOf(1, 4)])
  })

  it.each(causes)('auto: 3.1.1 does not fall back any further after $name', ({ cause }) => {
    const { state, dials } = run([open, lost('CONNACK 0x84'), { type: 'lost', cause, nowMs: 0 }])
    const verdict = verdictOf(cause)
    expect(dials.slice(0, 2)).toEqual([dialOf(0, 5), dialOf(0, 4)])
    if (verdict === 'stop') expect(state).toEqual({ status: 'closed', cause })
    else if (verdict === 'go-elsewhere') expect(dials[2]).toMatchObject({ protocolVersion: 5 })
    else expect(state).toMatchObject({ status: 'waiting', attempt: 1 })
  })

  it('auto: a broker that refuses both versions stops the connection', () => {
    const { state, versions } = run([open, lost('CONNACK 0x84'), lost('CONNACK 0x01')])
    expect(state).toEqual({ status: 'closed', cause: CAUSES['CONNACK 0x01'] })
    expect(versions).toEqual([5, 4])
  })

  it('auto: a fallback without a connection is discarded, and the next attempt starts with 5', () => {
    expect(run([open, lost('hang-up before CONNACK'), ...retried()]).versions).toEqual([5, 4, 5])
  })

  it('auto: a refusal of MQTT 5 is remembered: the next attempt starts with 3.1.1', () => {
    expect(run([open, lost('CONNACK 0x84'), ...retried()]).versions).toEqual([5, 4, 4])
  })

  it('auto: a connection with 3.1.1 after a closed connection does not fix the version', () => {
    const events = [open, lost('hang-up before CONNACK'), accepted(), ...retried('connection lost')]
    expect(run(events).versions).toEqual([5, 4, 5])
  })

  it('auto: 3.1.1 is kept after a connection', () => {
    const known = [open, lost('CONNACK 0x84'), accepted(), ...retried('connection lost')]
    const failures = [...retried(), ...retried('hang-up before CONNACK')]
    expect(run([...known, ...failures]).versions).toEqual([5, 4, 4, 4, 4])
  })

  it('auto: 5 is kept after a connection: a closed connection then causes no fallback', () => {
    const known = [open, accepted(), ...retried('connection lost')]
    const failures = [...retried('hang-up before CONNACK'), ...retried('reset before CONNACK'), ...retried()]
    expect(run([...known, ...failures]).versions).toEqual([5, 5, 5, 5, 5])
  })

  it.each(['CONNACK 0x84', 'CONNACK 0x01'] as const)(
    'auto: after a broker was replaced by an older one, 3.1.1 is tried at once, after %s',
    cause => {
      const { state, versions } = run([open, accepted(), ...retried('connection lost'), lost(cause)])
      expect(versions).toEqual([5, 5, 4])
      expect(state).toMatchObject({ status: 'connecting', attempt: 1 })
    },
  )

  it.each(['CONNACK 0x84', 'CONNACK 0x01'] as const)(
    'auto: after a broker was replaced by a newer one, 5 is tried in the next attempt, after %s',
    cause => {
      const known = [open, lost('CONNACK 0x84'), accepted(), ...retried('connection lost')]
      expect(run([...known, ...retried(cause)]).versions).toEqual([5, 4, 4, 5])
    },
  )

  it('auto: a replaced broker that supports neither version stops the connection', () => {
    const known = [open, lost('CONNACK 0x84'), accepted(), ...retried('connection lost')]
    const { state, versions } = run([
      ...known,
      ...retried('CONNACK 0x01'),
      lost('CONNACK 0x84'),
      lost('CONNACK 0x01'),
    ])
    expect(versions).toEqual([5, 4, 4, 5, 4])
    expect(state).toMatchObject({ status: 'closed' })
  })

  it('auto: the end of an established connection causes no fallback', () => {
    expect(run([open, accepted(), ...retried('hang-up before CONNACK')]).versions).toEqual([5, 5])
  })

  it.each([4, 5] as const)('%i: is kept, whatever the broker sends', protocolVersion => {
    const rules: ConnectionRules = { ...AUTO, protocolVersion, verdict: () => 'retry' }
    const failures = Object.values(CAUSES).flatMap((cause): ConnectionEvent[] => [
      { type: 'lost', cause, nowMs: 0 },
      delayElapsed,
    ])
    const { state, versions } = run([open, ...failures], rules)
    expect(new Set(versions)).toEqual(new Set([protocolVersion]))
    expect(versions).toHaveLength(1 + Object.keys(CAUSES).length)
    expect(state).toMatchObject({ status: 'connecting' })
  })

  it.each([
    [5, 'CONNACK 0x84'],
    [4, 'CONNACK 0x01'],
  ] as const)(
    '%i: a broker that does not support it stops the connection, after %s',
    (protocolVersion, cause) => {
      const { state, versions } = run([open, lost(cause)], { ...AUTO, protocolVersion })
      expect(state).toEqual({ status: 'closed', cause: CAUSES[cause] })
      expect(versions).toEqual([protocolVersion])
    },
  )
})

describe('any sequence of events', () => {
  /** The diagram of `ConnectionState`, and the close of an idle connection. */
  const LEGAL: Readonly<Record<Status, readonly Status[]>> = {
    idle: ['connecting', 'closed'],
    connecting: ['connected', 'waiting', 'closing', 'closed', 'connecting'],
    connected: ['waiting', 'closing', 'closed', 'connecting'],
    waiting: ['connecting', 'closed'],
    closing: ['closed'],
    closed: [],
  }

  type Timed = (nowMs: number) => ConnectionEvent
  const always =
    (event: ConnectionEvent): Timed =>
    () =>
      event
  const causeOf = (of: Readonly<Record<string, MqttError>>) => fc.constantFrom(...Object.values(of))
  const anyLoss = (cause: fc.Arbitrary<MqttError>) =>
    cause.map(
      (one): Timed =>
        nowMs => ({ type: 'lost', cause: one, nowMs }),
    )
  const anyEvent = fc.oneof(
    fc.constant(always(open)),
    { arbitrary: fc.constant<Timed>(accepted), weight: 3 },
    { arbitrary: anyLoss(causeOf(FAILURES)), weight: 3 },
    { arbitrary: anyLoss(causeOf(LOSSES)), weight: 3 },
    { arbitrary: fc.constant(always(delayElapsed)), weight: 4 },
    fc.constant(always(close)),
  )
  /** Time only goes forward. */
  const anyEvents = fc
    .array(fc.tuple(anyEvent, fc.constantFrom(0, 1, RESET_AFTER_MS - 1, RESET_AFTER_MS)), { maxLength: 60 })
    .map(steps => {
      let nowMs = 0
      return steps.map(([event, passedMs]) => {
        nowMs += passedMs
        return event(nowMs)
      })
    })
  const anyRules = fc.record<ConnectionRules>({
    protocolVersion: fc.constantFrom<ConnectionRules['protocolVersion'][]>('auto', 4, 5),
    failFast: fc.boolean(),
    resetAfterMs: fc.constantFrom(0, RESET_AFTER_MS),
    targets: fc.integer({ min: 1, max: 4 }),
    delayMs: fc.constantFrom<ConnectionRules['delayMs'][]>(
      round => round * 100,
      () => 0,
    ),
    verdict: fc.constantFrom<ConnectionRules['verdict'][]>(
      verdictOf,
      verdictOf,
      () => 'retry',
      () => 'retry-with-fresh-credentials',
      () => 'go-elsewhere',
      cause => (cause.reasonCode === undefined ? 'go-elsewhere' : 'stop'),
    ),
  })

  interface Step {
    readonly event: ConnectionEvent
    readonly from: ConnectionState
    readonly state: ConnectionState
    readonly effects: readonly ConnectionEffect[]
    readonly machine: ConnectionMachine
  }

  function stepsOf(events: readonly ConnectionEvent[], rules: ConnectionRules): Step[] {
    let machine = newMachine(rules)
    return events.map(event => {
      const from = machine.state
      const next = transition(machine, event, rules)
      machine = next.machine
      return { event, from, state: machine.state, effects: next.effects, machine }
    })
  }

  function holds(property: (steps: readonly Step[], rules: ConnectionRules) => void, numRuns = 1_000): void {
    fc.assert(
      fc.property(anyEvents, anyRules, (events, rules) => property(stepsOf(events, rules), rules)),
      { numRuns },
    )
  }

  it('follows the diagram, and covers every edge', () => {
    const walked = new Set<string>()
    holds(steps => {
      for (const { from, state } of steps) {
        if (state === from) continue
        expect(LEGAL[from.status]).toContain(state.status)
        walked.add(`${from.status} → ${state.status}`)
      }
    }, 2_000)
    const edges = Object.entries(LEGAL).flatMap(([from, all]) => all.map(to => `${from} → ${to}`))
    expect([...walked].toSorted()).toEqual(edges.toSorted())
  })

  it('has at most one effect per event, and none if the state does not change', () => {
    holds(steps => {
      for (const { from, state, effects } of steps)
        expect(effects.length).toBeLessThanOrEqual(state === from ? 0 : 1)
    })
  })

  it('never has two attempts at once: between two of them the network connection was lost', () => {
    holds(steps => {
      let isDialled = false
      for (const { event, effects } of steps) {
        if (event.type === 'lost') isDialled = false
        for (const effect of effects.filter(one => one.type === 'dial')) {
          expect(isDialled, JSON.stringify(effect)).toBe(false)
          isDialled = true
        }
      }
    }, 2_000)
  })

  it('ends every delay before the next attempt', () => {
    holds(steps => {
      let isWaiting = false
      for (const { event, effects } of steps) {
        if (event.type === 'delay-elapsed') isWaiting = false
        for (const effect of effects) {
          if (effect.type === 'cancel-wait') {
            expect(isWaiting).toBe(true)
            isWaiting = false
          }
          if (effect.type === 'dial' || effect.type === 'wait') expect(isWaiting).toBe(false)
          if (effect.type === 'wait') isWaiting = true
        }
      }
    }, 2_000)
  })

  it('starts a delay exactly with the state waiting, and cancels it exactly on a transition to closed', () => {
    holds(steps => {
      for (const { from, state, effects } of steps) {
        const entered = state.status === 'waiting' && from !== state
        expect(effects.filter(effect => effect.type === 'wait')).toEqual(
          entered ? [{ type: 'wait', delayMs: state.delayMs }] : [],
        )
        const left = from.status === 'waiting' && state.status === 'closed'
        expect(effects.some(effect => effect.type === 'cancel-wait')).toBe(left)
      }
    })
  })

  it('connects exactly when it enters connecting: to a target or to a Server Reference', () => {
    const references = new Set(Object.values(CAUSES).map(cause => cause.serverReference))
    holds((steps, rules) => {
      for (const { from, state, effects } of steps) {
        const dials = effects.filter(effect => effect.type === 'dial')
        expect(dials).toHaveLength(state.status === 'connecting' && from !== state ? 1 : 0)
        for (const { target, reference, protocolVersion } of dials) {
          expect(target).toBeGreaterThanOrEqual(0)
          expect(target).toBeLessThan(rules.targets)
          expect(references).toContain(reference)
          if (rules.protocolVersion !== 'auto') expect(protocolVersion).toBe(rules.protocolVersion)
        }
      }
    })
  })

  it('connects without a delay only for a fallback to 3.1.1 or a redirect', () => {
    holds((steps, rules) => {
      for (const { event, effects } of steps) {
        const [effect] = effects
        if (event.type !== 'lost' || effect?.type !== 'dial') continue
        const isFallBack = rules.protocolVersion === 'auto' && effect.protocolVersion === 4
        expect(isFallBack || effect.reference === event.cause.serverReference).toBe(true)
        if (!isFallBack) expect(effect.reference).toBeDefined()
      }
    }, 2_000)
  })

  it('never reconnects endlessly without a delay, whatever brokers do', () => {
    // Home and one Server Reference, each with MQTT 5 and with 3.1.1.
    const most = 4
    holds((steps, rules) => {
      // With 0 the application calls every connection a good one.
      fc.pre(rules.resetAfterMs > 0)
      let dials = 0
      let connectedAtMs = 0
      for (const { event, from, state, effects } of steps) {
        const isGood =
          event.type === 'lost' &&
          from.status === 'connected' &&
          event.nowMs - connectedAtMs >= rules.resetAfterMs
        if (state.status === 'waiting' || event.type === 'open' || isGood) dials = 0
        if (event.type === 'accepted' && from !== state) connectedAtMs = event.nowMs
        if (effects.some(effect => effect.type === 'dial')) dials += 1
        expect(dials).toBeLessThanOrEqual(most)
      }
    }, 2_000)
  })

  it('ends a network connection only if there is one: aborts before CONNACK, disconnects after', () => {
    holds(steps => {
      for (const { from, effects } of steps) {
        for (const effect of effects) {
          if (effect.type === 'abort') expect(from.status).toBe('connecting')
          if (effect.type === 'disconnect') expect(from.status).toBe('connected')
        }
      }
    })
  })

  it('numbers the attempts in order, from 1 only after a start or a connection', () => {
    holds(steps => {
      let before = 0
      for (const { event, from, state } of steps) {
        if (state === from) continue
        if (event.type === 'open' || from.status === 'connected') before = 0
        if (state.status === 'connecting') {
          expect(state.attempt).toBeGreaterThanOrEqual(Math.max(1, before))
          expect(state.attempt).toBeLessThanOrEqual(before + 1)
          before = state.attempt
        }
        if (state.status === 'connected' || state.status === 'waiting') expect(state.attempt).toBe(before)
      }
    }, 2_000)
  })

  it('ends after a close', () => {
    holds((steps, rules) => {
      const last = steps.at(-1)?.machine ?? newMachine(rules)
      const before = last.state
      const { state } = run([close, lost('connection lost')], rules, last)
      expect(state.status).toBe('closed')
      if (before.status !== 'closed') expect(state).toEqual({ status: 'closed' })
    })
  })

  it('closes only by close, by a stop, or by fail-fast after every URL has failed', () => {
    holds((steps, rules) => {
      let wasConnected = false
      let tried = new Set<number>()
      for (const { event, from, state, effects } of steps) {
        if (event.type === 'open' && from !== state) {
          wasConnected = false
          tried = new Set()
        }
        for (const effect of effects) if (effect.type === 'dial') tried.add(effect.target)
        if (state.status === 'connected') wasConnected = true
        if (state.status !== 'closed' || state === from) continue
        if (state.cause === undefined) {
          expect(event.type === 'close' || from.status === 'closing').toBe(true)
          continue
        }
        expect(event.type === 'lost' && event.cause).toBe(state.cause)
        if (rules.verdict(state.cause) === 'stop') continue
        expect(rules.failFast).toBe(true)
        expect(wasConnected).toBe(false)
        expect(tried.size).toBe(rules.targets)
      }
    }, 2_000)
  })
})

describe('a connection that is replaced', () => {
  const closedHere = (nowMs = 0): ConnectionEvent => ({
    type: 'lost',
    cause: new MqttError('CONNECTION_CLOSED', 'closed by this application'),
    nowMs,
  })

  it('ends with DISCONNECT, and the next one follows without a delay and without a cause', () => {
    const { state, effects } = run([open, accepted(), replace, closedHere()])
    expect(state).toEqual({ status: 'connecting', attempt: 1 })
    expect(effects).toEqual([dialOf(0), { type: 'disconnect' }, dialOf(0)])
  })

  it('sends DISCONNECT once', () => {
    const { effects } = run([open, accepted(), replace, replace])
    expect(effects.filter(({ type }) => type === 'disconnect')).toHaveLength(1)
  })

  it('is a lost connection if the broker ended it first', () => {
    const { state, delays } = run([open, accepted(), replace, lost('DISCONNECT 0x8B')])
    expect(state.status).toBe('waiting')
    expect(delays).toHaveLength(1)
  })

  it('is a failed attempt if the next one is refused', () => {
    const { state } = run([open, accepted(), replace, closedHere(), lost()])
    expect(state).toMatchObject({ status: 'waiting', attempt: 1 })
  })

  it('is replaced only when asked', () => {
    const { state } = run([open, accepted(), replace, closedHere(), accepted(), closedHere()])
    expect(state.status).toBe('waiting')
  })
})
