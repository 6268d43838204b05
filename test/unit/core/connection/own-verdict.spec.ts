import { describe, expect, it } from 'vitest'
import { isReplaced } from '../../../../src/core/connection/connection-state.js'
import {
  giveBackDelayMs,
  giveBackError,
  nextSrvRecord,
  ownVerdict,
  refusesVersion,
  suggestsOlderBroker,
  verdictOf,
} from '../../../../src/core/connection/reconnect-rules.js'
import { MqttError } from '../../../../src/core/errors.js'
import type { Verdict } from '../../../../src/options/options.js'

const CAUSE = new MqttError('CONNECTION_LOST', 'gone', { reasonCode: 0x8b })

describe('the verdict of the application', () => {
  it.each(['retry', 'retry-with-fresh-credentials', 'go-elsewhere', 'stop'] as const)(
    'may be %s',
    verdict => {
      expect(ownVerdict(() => verdict, CAUSE)).toBe(verdict)
    },
  )

  it('depends on the cause', () => {
    const verdict = (cause: MqttError): Verdict => (cause.reasonCode === 0x8b ? 'stop' : 'retry')
    expect(ownVerdict(verdict, CAUSE)).toBe('stop')
  })

  it('is left to the table if there is none, if it is no verdict, or if it throws', () => {
    expect(ownVerdict(undefined, CAUSE)).toBeUndefined()
    expect(ownVerdict(() => undefined, CAUSE)).toBeUndefined()
    // Seam: JavaScript may return anything.
    expect(ownVerdict(() => 'never' as Verdict, CAUSE)).toBeUndefined()
    const failing = (): Verdict => {
      throw new Error('no')
    }
    expect(ownVerdict(failing, CAUSE)).toBeUndefined()
  })
})

describe('the end of a connection without a Reason Code', () => {
  it('is a retry', () => {
    expect(verdictOf(new MqttError('CONNECTION_LOST', 'gone'))).toBe('retry')
  })
})

describe('a connection that ends so that the broker delivers a message again', () => {
  it('stays open for longer with each failure, up to a minute', () => {
    expect([2, 3, 4, 7, 8, 50].map(giveBackDelayMs)).toEqual([1_000, 2_000, 4_000, 32_000, 60_000, 60_000])
  })

  it('names the handler and the number of deliveries', () => {
    const cause = new Error('inner')
    expect(giveBackError('a/+', 1, cause)).toMatchObject({
      code: 'CONNECTION_LOST',
      message: 'the handler of "a/+" failed, and onFailure is "disconnect"',
      reasonCode: 0x83,
      cause,
    })
    expect(giveBackError('a/+', 3, cause).message).toBe(
      'the handler of "a/+" failed for delivery 3 of a message, and onFailure is "disconnect"',
    )
  })
})

describe('a broker that may not support MQTT 5', () => {
  const failed = (cause?: unknown) =>
    new MqttError('CONNECT_FAILED', 'no', cause === undefined ? {} : { cause })

  it('refuses the version in CONNACK, and not otherwise', () => {
    for (const reasonCode of [0x01, 0x84]) {
      expect(refusesVersion(new MqttError('CONNECT_REFUSED', 'no', { reasonCode }))).toBe(true)
      expect(refusesVersion(new MqttError('CONNECTION_LOST', 'no', { reasonCode }))).toBe(false)
    }
    expect([refusesVersion(undefined), refusesVersion(failed())]).toEqual([false, false])
  })

  it.each([
    ['hangs up', undefined, true],
    ['resets the connection', Object.assign(new Error('x'), { code: 'ECONNRESET' }), true],
    ['cannot be reached', Object.assign(new Error('x'), { code: 'ECONNREFUSED' }), false],
    ['does not respond', new Error('timeout'), false],
    ['ends with something that is no error', { code: 'ECONNRESET' }, false],
  ])('%s', (_how, cause, suggests) => {
    expect(suggestsOlderBroker(failed(cause), false)).toBe(suggests)
    expect(suggestsOlderBroker(failed(cause), true)).toBe(false)
  })
})

describe('the choice of an SRV record', () => {
  const record = (name: string, priority: number, weight: number) => ({ name, port: 1_883, priority, weight })
  const chosen = (records: ReturnType<typeof record>[], random: number, tried: string[] = []) =>
    nextSrvRecord(records, new Set(tried), random)?.name

  it('is by weight, in the order of the records', () => {
    const records = [record('a', 1, 1), record('b', 1, 3)]
    expect([0, 0.249, 0.25, 0.999].map(random => chosen(records, random))).toEqual(['a', 'a', 'b', 'b'])
  })

  it('gives all records without a weight one chance together', () => {
    const records = [record('a', 1, 3), record('b', 1, 0), record('c', 1, 0)]
    expect([0, 0.124, 0.125, 0.249, 0.25, 0.999].map(random => chosen(records, random))).toEqual([
      'b',
      'b',
      'c',
      'c',
      'a',
      'a',
    ])
  })

  it('is among those of the lowest priority that were not tried', () => {
    const records = [record('a', 2, 9), record('b', 1, 1), record('c', 1, 0)]
    expect(chosen(records, 0.999)).toBe('b')
    expect(chosen(records, 0.999, ['b:1883'])).toBe('c')
    expect(chosen(records, 0, ['b:1883', 'c:1883'])).toBe('a')
    expect(chosen(records, 0, ['a:1883', 'b:1883', 'c:1883'])).toBeUndefined()
  })
})

describe('a connection in place of one that worked', () => {
  it('is one that is opened without a cause', () => {
    const connected = { status: 'connected', attempt: 1 } as const
    const session = { broker: 'a', protocolVersion: 5, sessionPresent: false } as const
    // Seam: the limits of the broker do not matter.
    const before = { ...connected, session } as unknown as Parameters<typeof isReplaced>[1]
    const next = { status: 'connecting', attempt: 1 } as const
    expect(isReplaced(next, before)).toBe(true)
    expect(isReplaced({ ...next, cause: CAUSE }, before)).toBe(false)
    expect(isReplaced(next, { status: 'idle' })).toBe(false)
    expect(isReplaced({ status: 'closing' }, before)).toBe(false)
  })
})
