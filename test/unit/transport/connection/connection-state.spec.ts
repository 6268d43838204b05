import fc from 'fast-check'
import { describe, expect, it, vi } from 'vitest'
import { MqttError } from '../../../../src/errors.js'
import { brokerLimits } from '../../../../src/transport/connection/broker-limits.js'
import {
  type ConnectedSession,
  type ConnectionEffect,
  type ConnectionEvent,
  type ConnectionRules,
  type ConnectionState,
  type ProtocolVersion,
  type Transition,
  transition,
} from '../../../../src/transport/connection/connection-state.js'

type Status = ConnectionState['status']
type EventType = ConnectionEvent['type']

const RESET_AFTER_MS = 10_000
const AUTO: ConnectionRules = {
  protocolVersion: 'auto',
  failFast: false,
  resetAfterMs: RESET_AFTER_MS,
  delayMs: attempt => attempt * 100,
}
const FAIL_FAST: ConnectionRules = { ...AUTO, failFast: true }

const withCode = (code: string) => Object.assign(new Error(code), { code })

const CAUSES = {
  'hang-up before CONNACK': new MqttError('CONNECT_FAILED', 'closed before CONNACK'),
  'reset before CONNACK': new MqttError('CONNECT_FAILED', 'reset', { cause: withCode('ECONNRESET') }),
  'connection refused': new MqttError('CONNECT_FAILED', 'refused', { cause: withCode('ECONNREFUSED') }),
  'no CONNACK in time': new MqttError('CONNECT_FAILED', 'timeout', { cause: new Error('connack timeout') }),
  'CONNACK 0x84': new MqttError('CONNECT_REFUSED', 'version', { reasonCode: 0x84 }),
  'CONNACK 0x01': new MqttError('CONNECT_REFUSED', 'version', { reasonCode: 0x01 }),
  'CONNACK 0x87': new MqttError('CONNECT_REFUSED', 'not authorized', { reasonCode: 0x87 }),
  'CONNACK 0x05': new MqttError('CONNECT_REFUSED', 'not authorized', { reasonCode: 0x05 }),
  'connection lost': new MqttError('CONNECTION_LOST', 'gone'),
} as const

type Cause = keyof typeof CAUSES

const session = (protocolVersion: ProtocolVersion = 5): ConnectedSession => ({
  protocolVersion,
  sessionPresent: false,
  limits: brokerLimits(protocolVersion),
})

const open: ConnectionEvent = { type: 'open' }
const close: ConnectionEvent = { type: 'close' }
const delayElapsed: ConnectionEvent = { type: 'delay-elapsed' }
const accepted = (nowMs = 0): ConnectionEvent => ({ type: 'accepted', session: session(), nowMs })
const lost = (cause: Cause = 'connection refused', nowMs = 0): ConnectionEvent => ({
  type: 'lost',
  cause: CAUSES[cause],
  nowMs,
})

const EVENTS: Readonly<Record<EventType, ConnectionEvent>> = {
  open,
  accepted: accepted(),
  lost: lost(),
  'delay-elapsed': delayElapsed,
  close,
}

const idle: ConnectionState = { status: 'idle' }

/** Where the events lead from a state, and every effect on the way. */
function run(events: readonly ConnectionEvent[], rules = AUTO, start = idle) {
  const effects: ConnectionEffect[] = []
  let state = start
  for (const event of events) {
    const next: Transition = transition(state, event, rules)
    state = next.state
    effects.push(...next.effects)
  }
  return { state, effects }
}

const STATES: Readonly<Record<Status, ConnectionState>> = {
  idle,
  connecting: run([open]).state,
  connected: run([open, accepted()]).state,
  waiting: run([open, lost()]).state,
  closing: run([open, accepted(), close]).state,
  closed: run([open, accepted(), close, lost('connection lost')]).state,
}

describe('every state knows every event', () => {
  const dial: ConnectionEffect = { type: 'dial', protocolVersion: 5 }
  const stays = undefined

  const TABLE: Readonly<
    Record<Status, Record<EventType, readonly [Status, ...ConnectionEffect[]] | undefined>>
  > = {
    idle: {
      open: ['connecting', dial],
      accepted: stays,
      lost: stays,
      'delay-elapsed': stays,
      close: ['closed'],
    },
    connecting: {
      open: stays,
      accepted: ['connected'],
      lost: ['waiting', { type: 'wait', delayMs: 100 }],
      'delay-elapsed': stays,
      close: ['closing', { type: 'abort' }],
    },
    connected: {
      open: stays,
      accepted: stays,
      lost: ['waiting', { type: 'wait', delayMs: 100 }],
      'delay-elapsed': stays,
      close: ['closing', { type: 'disconnect' }],
    },
    waiting: {
      open: stays,
      accepted: stays,
      lost: stays,
      'delay-elapsed': ['connecting', dial],
      close: ['closed', { type: 'cancel-wait' }],
    },
    closing: {
      open: stays,
      accepted: stays,
      lost: ['closed'],
      'delay-elapsed': stays,
      close: stays,
    },
    closed: {
      open: ['connecting', dial],
      accepted: stays,
      lost: stays,
      'delay-elapsed': stays,
      close: stays,
    },
  }

  const pairs = Object.values(STATES).flatMap(state =>
    Object.values(EVENTS).map(event => ({
      from: state.status,
      on: event.type,
      to: TABLE[state.status][event.type]?.[0] ?? 'the same',
      state,
      event,
      expected: TABLE[state.status][event.type],
    })),
  )

  it('and the table has them all', () => {
    expect(pairs).toHaveLength(6 * 5)
    expect(Object.entries(STATES).every(([status, state]) => status === state.status)).toBe(true)
  })

  it.each(pairs)('$from, on $on: $to', ({ state, event, expected }) => {
    const next = transition(state, event, AUTO)
    if (expected === undefined) {
      expect(next.state).toBe(state)
      expect(next.effects).toEqual([])
    } else {
      const [status, ...effects] = expected
      expect(next.state.status).toBe(status)
      expect(next.effects).toEqual(effects)
    }
  })

  it('changes nothing in the state that it is given', () => {
    for (const state of Object.values(STATES)) {
      const before = structuredClone({ ...state, cause: undefined, session: undefined })
      for (const event of Object.values(EVENTS)) transition(state, event, AUTO)
      expect({ ...state, cause: undefined, session: undefined }).toEqual(before)
    }
  })
})

describe('what the states carry', () => {
  it('connected: the session of CONNACK and since when', () => {
    const granted = session(4)
    const { state } = run([open, { type: 'accepted', session: granted, nowMs: 1_234 }])
    expect(state).toMatchObject({ status: 'connected', sinceMs: 1_234, attempt: 1, versionKnown: true })
    expect(state.status === 'connected' && state.session).toBe(granted)
  })

  it('waiting: the delay and the cause', () => {
    expect(run([open, lost('CONNACK 0x87')]).state).toMatchObject({
      status: 'waiting',
      delayMs: 100,
      attempt: 1,
      cause: CAUSES['CONNACK 0x87'],
    })
  })

  it('closed by the application: no cause', () => {
    for (const events of [
      [close],
      [open, close, lost()],
      [open, accepted(), close, lost()],
      [open, lost(), close],
    ]) {
      expect(run(events).state).toEqual({ status: 'closed' })
    }
  })

  it('opened again after closed: nothing of the connection before', () => {
    const first = run([open])
    const again = run([open, lost(), delayElapsed, accepted(), close, lost('connection lost'), open])
    expect(again.state).toEqual(first.state)
  })
})

describe('the delay between attempts', () => {
  it('is asked for with the number of failures in a row, the cause and the delay before', () => {
    const delayMs = vi.fn((attempt: number) => attempt * 100)
    const rules = { ...AUTO, delayMs }
    run(
      [
        open,
        lost('connection refused'),
        delayElapsed,
        lost('CONNACK 0x87'),
        delayElapsed,
        lost('CONNACK 0x05'),
      ],
      rules,
    )
    expect(delayMs.mock.calls).toEqual([
      [1, CAUSES['connection refused'], 0],
      [2, CAUSES['CONNACK 0x87'], 100],
      [3, CAUSES['CONNACK 0x05'], 200],
    ])
  })

  it('of zero still counts the attempts', () => {
    const rules = { ...FAIL_FAST, delayMs: () => 0 }
    const { state } = run(
      [open, accepted(), lost('connection lost'), delayElapsed, lost(), delayElapsed],
      rules,
    )
    expect(state).toMatchObject({ status: 'connecting', attempt: 3 })
  })

  it('goes on for ever', () => {
    const failures = Array.from({ length: 1_000 }, () => [lost(), delayElapsed]).flat()
    expect(run([open, ...failures]).state).toMatchObject({ status: 'connecting', attempt: 1_001 })
  })
})

describe('the count of failures', () => {
  const failTwiceThenConnect = [open, lost(), delayElapsed, lost(), delayElapsed, accepted(1_000)]

  it.each([
    [0, 3, 300],
    [RESET_AFTER_MS - 1, 3, 300],
    [RESET_AFTER_MS, 1, 100],
    [RESET_AFTER_MS + 1, 1, 100],
  ])('of a connection that lasted %i ms goes on from %i', (lastedMs, attempt, delayMs) => {
    const { state } = run([...failTwiceThenConnect, lost('connection lost', 1_000 + lastedMs)])
    expect(state).toMatchObject({ status: 'waiting', attempt, delayMs })
  })

  it('starts from the first delay again after a good connection, also for the delay before', () => {
    const delayMs = vi.fn(() => 7)
    run([...failTwiceThenConnect, lost('connection lost', 1_000 + RESET_AFTER_MS)], { ...AUTO, delayMs })
    expect(delayMs).toHaveBeenLastCalledWith(1, CAUSES['connection lost'], 0)
  })

  it('grows while a broker accepts and drops again and again', () => {
    const flaps = Array.from({ length: 5 }, () => [
      accepted(0),
      lost('connection lost', 1),
      delayElapsed,
    ]).flat()
    expect(run([open, ...flaps]).state).toMatchObject({ status: 'connecting', attempt: 6 })
  })

  it('counts every connection as good with resetAfterMs 0', () => {
    const { state } = run([...failTwiceThenConnect, lost('connection lost', 1_000)], {
      ...AUTO,
      resetAfterMs: 0,
    })
    expect(state).toMatchObject({ attempt: 1 })
  })
})

describe('fail-fast', () => {
  it.each([
    'connection refused',
    'no CONNACK in time',
    'CONNACK 0x87',
    'CONNACK 0x05',
    'connection lost',
  ] as const)('closes with the cause when the first attempt fails: %s', cause => {
    const { state, effects } = run([open, lost(cause)], FAIL_FAST)
    expect(state).toEqual({ status: 'closed', cause: CAUSES[cause] })
    expect(effects).toEqual([{ type: 'dial', protocolVersion: 5 }])
  })

  it('gives 3.1.1 a chance before, and then closes with the second cause', () => {
    const events = [open, lost('hang-up before CONNACK'), lost('connection refused')]
    const { state, effects } = run(events, FAIL_FAST)
    expect(state).toEqual({ status: 'closed', cause: CAUSES['connection refused'] })
    expect(effects).toEqual([
      { type: 'dial', protocolVersion: 5 },
      { type: 'dial', protocolVersion: 4 },
    ])
  })

  it('does not end a connection that was there once, however short it was', () => {
    const events = [open, accepted(), lost('connection lost'), delayElapsed, lost(), delayElapsed, lost()]
    expect(run(events, FAIL_FAST).state).toMatchObject({ status: 'waiting', attempt: 3 })
  })

  it('is asked anew when the connection is opened again', () => {
    const events = [open, accepted(), close, lost('connection lost'), open, lost()]
    expect(run(events, FAIL_FAST).state).toEqual({ status: 'closed', cause: CAUSES['connection refused'] })
  })

  it('can be opened again after it gave up', () => {
    expect(run([open, lost(), open], FAIL_FAST).state).toMatchObject({ status: 'connecting', attempt: 1 })
  })
})

describe('the protocol version', () => {
  const dials = (effects: readonly ConnectionEffect[]) =>
    effects.flatMap(effect => (effect.type === 'dial' ? [effect.protocolVersion] : []))

  const FIRST_ATTEMPT: readonly (readonly [Cause, readonly ProtocolVersion[]])[] = [
    ['CONNACK 0x84', [5, 4]],
    ['CONNACK 0x01', [5, 4]],
    ['hang-up before CONNACK', [5, 4]],
    ['reset before CONNACK', [5, 4]],
    ['connection refused', [5]],
    ['no CONNACK in time', [5]],
    ['CONNACK 0x87', [5]],
    ['CONNACK 0x05', [5]],
    ['connection lost', [5]],
  ]

  it('is tried out for every cause', () => {
    expect(FIRST_ATTEMPT.map(([cause]) => cause).toSorted()).toEqual(Object.keys(CAUSES).toSorted())
  })

  it.each(FIRST_ATTEMPT)('auto: after %s in the first attempt, dials %j', (cause, versions) => {
    const { state, effects } = run([open, lost(cause)])
    expect(dials(effects)).toEqual(versions)
    expect(state.status).toBe(versions.length === 2 ? 'connecting' : 'waiting')
  })

  it('auto: the fall back takes no delay and is part of the same attempt', () => {
    const { state, effects } = run([open, lost('CONNACK 0x84')])
    expect(state).toMatchObject({ status: 'connecting', attempt: 1, protocolVersion: 4 })
    expect(effects.some(effect => effect.type === 'wait')).toBe(false)
  })

  it.each(Object.keys(CAUSES))('auto: 3.1.1 does not fall back any further after %s, it waits', name => {
    const cause = Object.entries(CAUSES).find(([key]) => key === name)?.[1] ?? CAUSES['connection lost']
    const { state } = run([open, lost('CONNACK 0x84'), { type: 'lost', cause, nowMs: 0 }])
    expect(state).toMatchObject({ status: 'waiting', attempt: 1 })
  })

  it('auto: a guess that did not lead to a connection is forgotten, the next attempt begins with 5', () => {
    const { effects } = run([open, lost('hang-up before CONNACK'), lost('connection refused'), delayElapsed])
    expect(dials(effects)).toEqual([5, 4, 5])
  })

  it('auto: 3.1.1 that led to a connection stays', () => {
    const known = [open, lost('CONNACK 0x84'), accepted(), lost('connection lost'), delayElapsed]
    const failures = [lost('connection refused'), delayElapsed, lost('hang-up before CONNACK'), delayElapsed]
    expect(dials(run([...known, ...failures]).effects)).toEqual([5, 4, 4, 4, 4])
  })

  it('auto: 5 that led to a connection stays: a hang-up is no hint any more', () => {
    const known = [open, accepted(), lost('connection lost'), delayElapsed]
    const failures = [
      lost('hang-up before CONNACK'),
      delayElapsed,
      lost('reset before CONNACK'),
      delayElapsed,
      lost('connection refused'),
      delayElapsed,
    ]
    expect(dials(run([...known, ...failures]).effects)).toEqual([5, 5, 5, 5, 5])
  })

  it.each(['CONNACK 0x84', 'CONNACK 0x01'] as const)(
    'auto: a broker that was replaced by an older one is met with 3.1.1 at once, after %s',
    cause => {
      const { state, effects } = run([open, accepted(), lost('connection lost'), delayElapsed, lost(cause)])
      expect(dials(effects)).toEqual([5, 5, 4])
      expect(state).toMatchObject({ status: 'connecting', attempt: 2, versionKnown: false })
    },
  )

  it.each(['CONNACK 0x84', 'CONNACK 0x01'] as const)(
    'auto: a broker that was replaced by a newer one is met with 5 in the next attempt, after %s',
    cause => {
      const known = [open, lost('CONNACK 0x84'), accepted(), lost('connection lost'), delayElapsed]
      const { state, effects } = run([...known, lost(cause), delayElapsed])
      expect(dials(effects)).toEqual([5, 4, 4, 5])
      expect(state).toMatchObject({ versionKnown: false })
    },
  )

  it('auto: a hang-up of an established connection is no hint', () => {
    expect(dials(run([open, accepted(), lost('hang-up before CONNACK'), delayElapsed]).effects)).toEqual([
      5, 5,
    ])
  })

  it.each([4, 5] as const)('%i: is kept, whatever the broker says', protocolVersion => {
    const failures = Object.values(CAUSES).flatMap((cause): ConnectionEvent[] => [
      { type: 'lost', cause, nowMs: 0 },
      delayElapsed,
    ])
    const { state, effects } = run([open, ...failures], { ...AUTO, protocolVersion })
    expect(new Set(dials(effects))).toEqual(new Set([protocolVersion]))
    expect(dials(effects)).toHaveLength(1 + Object.keys(CAUSES).length)
    expect(state).toMatchObject({ status: 'connecting', protocolVersion, versionKnown: true })
  })
})

describe('any sequence of events', () => {
  /** The diagram of `ConnectionState`, with the close of an idle connection and the fall back to 3.1.1. */
  const LEGAL: Readonly<Record<Status, readonly Status[]>> = {
    idle: ['connecting', 'closed'],
    connecting: ['connected', 'waiting', 'closing', 'closed', 'connecting'],
    connected: ['waiting', 'closing'],
    waiting: ['connecting', 'closed'],
    closing: ['closed'],
    closed: ['connecting'],
  }

  const nowMs = fc.integer({ min: 0, max: 3 * RESET_AFTER_MS })
  const anyEvent = fc.oneof(
    fc.constant(open),
    { arbitrary: nowMs.map(accepted), weight: 3 },
    {
      arbitrary: fc
        .tuple(fc.constantFrom(...Object.values(CAUSES)), nowMs)
        .map(([cause, now]): ConnectionEvent => ({ type: 'lost', cause, nowMs: now })),
      weight: 3,
    },
    { arbitrary: fc.constant(delayElapsed), weight: 3 },
    fc.constant(close),
  )
  const anyRules = fc.record({
    protocolVersion: fc.constantFrom<ConnectionRules['protocolVersion'][]>('auto', 4, 5),
    failFast: fc.boolean(),
    resetAfterMs: fc.constantFrom(0, RESET_AFTER_MS),
    delayMs: fc.constantFrom(
      (attempt: number) => attempt * 100,
      () => 0,
    ),
  })

  const anyHistory = fc.tuple(fc.array(anyEvent, { maxLength: 60 }), anyRules)

  function steps(events: readonly ConnectionEvent[], rules: ConnectionRules) {
    let before = idle
    return events.map(event => {
      const from = before
      const { state, effects } = transition(from, event, rules)
      before = state
      return { from, event, state, effects }
    })
  }

  it('keeps to the diagram, and walks every edge of it', () => {
    const walked = new Set<string>()
    fc.assert(
      fc.property(anyHistory, ([events, rules]) => {
        for (const { from, state } of steps(events, rules)) {
          if (state === from) continue
          expect(LEGAL[from.status]).toContain(state.status)
          walked.add(`${from.status} → ${state.status}`)
        }
      }),
      { numRuns: 2_000 },
    )
    const edges = Object.entries(LEGAL).flatMap(([from, all]) => all.map(to => `${from} → ${to}`))
    expect([...walked].toSorted()).toEqual(edges.toSorted())
  })

  it('never dials while there is a network connection: between two dials there is a loss', () => {
    fc.assert(
      fc.property(anyHistory, ([events, rules]) => {
        let isDialled = false
        for (const { event, effects } of steps(events, rules)) {
          if (event.type === 'lost') isDialled = false
          for (const effect of effects.filter(one => one.type === 'dial')) {
            expect(isDialled, JSON.stringify(effect)).toBe(false)
            isDialled = true
          }
        }
      }),
      { numRuns: 2_000 },
    )
  })

  it('starts a wait exactly with the state waiting, and never two at a time', () => {
    fc.assert(
      fc.property(anyHistory, ([events, rules]) => {
        for (const { from, state, effects } of steps(events, rules)) {
          const waits = effects.filter(effect => effect.type === 'wait')
          const entered = state.status === 'waiting' && from !== state
          expect(waits).toEqual(
            entered && state.status === 'waiting' ? [{ type: 'wait', delayMs: state.delayMs }] : [],
          )
          const left = from.status === 'waiting' && state.status === 'closed'
          expect(effects.some(effect => effect.type === 'cancel-wait')).toBe(left)
        }
      }),
    )
  })

  it('ends a network connection only where there is one: aborts before CONNACK, disconnects after', () => {
    fc.assert(
      fc.property(anyHistory, ([events, rules]) => {
        for (const { from, effects } of steps(events, rules)) {
          for (const effect of effects) {
            if (effect.type === 'abort') expect(from.status).toBe('connecting')
            if (effect.type === 'disconnect') expect(from.status).toBe('connected')
          }
        }
      }),
    )
  })

  it('dials what the state says, and has at most one effect for an event', () => {
    fc.assert(
      fc.property(anyHistory, ([events, rules]) => {
        for (const { state, effects } of steps(events, rules)) {
          expect(effects.length).toBeLessThanOrEqual(1)
          const [effect] = effects
          if (effect?.type !== 'dial') continue
          expect(state).toMatchObject({ status: 'connecting', protocolVersion: effect.protocolVersion })
          if (rules.protocolVersion !== 'auto') expect(effect.protocolVersion).toBe(rules.protocolVersion)
        }
      }),
    )
  })

  it('has no effect where the state stays, and ends after a close unless it is opened again', () => {
    fc.assert(
      fc.property(anyHistory, ([events, rules]) => {
        const history = steps(events, rules)
        for (const { from, state, effects } of history) if (from === state) expect(effects).toEqual([])
        const last = history.at(-1)?.state ?? idle
        const closed = run([close, lost('connection lost')], rules, last)
        expect(closed.state.status).toBe('closed')
      }),
    )
  })

  it('closes with a cause only under fail-fast, and only before the first connection', () => {
    fc.assert(
      fc.property(anyHistory, ([events, rules]) => {
        let wasConnected = false
        for (const { event, from, state } of steps(events, rules)) {
          if (event.type === 'open' && from !== state) wasConnected = false
          if (state.status === 'connected') wasConnected = true
          if (state.status === 'closed' && state !== from && state.cause !== undefined) {
            expect(rules.failFast).toBe(true)
            expect(wasConnected).toBe(false)
          }
        }
      }),
    )
  })
})
