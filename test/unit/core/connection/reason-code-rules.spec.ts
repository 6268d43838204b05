import { describe, expect, it } from 'vitest'
import {
  CONNACK_RULES,
  CONNACK_RULES_3_1_1,
  DISCONNECT_RULES,
  type ReasonCodeRule,
  verdictOf,
} from '../../../../src/core/connection/reconnect-rules.js'
import { MqttError, type MqttErrorCode } from '../../../../src/core/errors.js'
import type { Verdict } from '../../../../src/options/options.js'
import {
  hex,
  MQTT_3_1_1_CONNACK,
  MQTT_5_CONNACK,
  MQTT_5_DISCONNECT,
  type SpecifiedCode,
} from './specified-reason-codes.js'

interface Table {
  readonly table: string
  readonly rules: readonly ReasonCodeRule[]
  readonly specified: readonly SpecifiedCode[]
  /** The code of the error that such an end of a connection is. */
  readonly error: MqttErrorCode
  /** What the design asks for, written down on its own; all other codes are tried again. */
  readonly verdicts: Readonly<Partial<Record<Verdict, readonly number[]>>>
}

const TABLES: readonly Table[] = [
  {
    table: 'CONNACK of MQTT 5',
    rules: CONNACK_RULES,
    specified: MQTT_5_CONNACK,
    error: 'CONNECT_REFUSED',
    verdicts: {
      stop: [0x81, 0x82, 0x84, 0x85, 0x8a, 0x8c, 0x90, 0x95, 0x99, 0x9a, 0x9b],
      'retry-with-fresh-credentials': [0x86, 0x87],
      'go-elsewhere': [0x9c, 0x9d],
    },
  },
  {
    table: 'CONNACK of MQTT 3.1.1',
    rules: CONNACK_RULES_3_1_1,
    specified: MQTT_3_1_1_CONNACK,
    error: 'CONNECT_REFUSED',
    verdicts: { stop: [0x01, 0x02], 'retry-with-fresh-credentials': [0x04, 0x05] },
  },
  {
    table: 'DISCONNECT of MQTT 5',
    rules: DISCONNECT_RULES,
    specified: MQTT_5_DISCONNECT,
    error: 'CONNECTION_LOST',
    verdicts: {
      stop: [0x00, 0x8e],
      'retry-with-fresh-credentials': [0x87, 0xa0],
      'go-elsewhere': [0x9c, 0x9d],
    },
  },
]

const VERDICTS: readonly Verdict[] = ['stop', 'retry-with-fresh-credentials', 'go-elsewhere']
const designed = ({ verdicts }: Table, reasonCode: number): Verdict =>
  VERDICTS.find(verdict => verdicts[verdict]?.includes(reasonCode)) ?? 'retry'

describe.each(TABLES)('$table', ({ rules, specified, ...rest }) => {
  const table: Table = { rules, specified, ...rest }
  const codes = rules.map(rule => rule.reasonCode)

  it('has every Reason Code that a broker may send exactly once, in order, and no other', () => {
    expect(codes.map(hex)).toEqual(specified.map(([reasonCode]) => hex(reasonCode)))
    expect(new Set(codes).size).toBe(codes.length)
  })

  it('has reasons that fit into a cell of the published table', () => {
    for (const { why } of rules) expect(why).toMatch(/^[^\s|][^|\n]*[^\s|.]$/)
  })

  const rows = specified.map(([reasonCode, name]) => ({
    code: hex(reasonCode),
    name,
    reasonCode,
    verdict: designed(table, reasonCode),
  }))

  it.each(rows)('$code $name: $verdict', ({ reasonCode, verdict }) => {
    expect(rules.find(rule => rule.reasonCode === reasonCode)?.verdict).toBe(verdict)
    const cause = new MqttError(rest.error, 'x', { reasonCode, serverReference: 'other.example' })
    expect(verdictOf(cause)).toBe(verdict)
  })

  it.each(rows)('$code $name without a Server Reference does not redirect', ({ reasonCode, verdict }) => {
    const cause = new MqttError(rest.error, 'x', { reasonCode })
    expect(verdictOf(cause)).toBe(verdict === 'go-elsewhere' ? 'retry' : verdict)
  })

  const known = new Set(codes)
  // The codes of both versions occur in CONNACK.
  for (const [reasonCode] of rest.error === 'CONNECT_REFUSED'
    ? [...MQTT_5_CONNACK, ...MQTT_3_1_1_CONNACK]
    : [])
    known.add(reasonCode)

  it('retries after every other code', () => {
    for (let reasonCode = 0; reasonCode <= 0xff; reasonCode++) {
      if (known.has(reasonCode)) continue
      const cause = new MqttError(rest.error, 'x', { reasonCode, serverReference: 'other.example' })
      expect(verdictOf(cause), hex(reasonCode)).toBe('retry')
    }
  })
})

describe('verdictOf', () => {
  it('uses one table for both versions, because their codes for CONNACK do not overlap', () => {
    const codes = [...CONNACK_RULES, ...CONNACK_RULES_3_1_1].map(rule => rule.reasonCode)
    expect(new Set(codes).size).toBe(codes.length)
  })

  it.each(['CONNECT_FAILED', 'CONNECT_REFUSED', 'CONNECTION_LOST', 'TIMEOUT'] as const)(
    'retries after %s without a Reason Code, even with a Server Reference',
    code => {
      expect(verdictOf(new MqttError(code, 'x'))).toBe('retry')
      expect(verdictOf(new MqttError(code, 'x', { serverReference: 'other.example' }))).toBe('retry')
    },
  )

  it('distinguishes a refused CONNECT from a DISCONNECT with the same code', () => {
    const verdicts = (reasonCode: number) =>
      (['CONNECT_REFUSED', 'CONNECTION_LOST'] as const).map(code =>
        verdictOf(new MqttError(code, 'x', { reasonCode })),
      )
    expect(verdicts(0x81)).toEqual(['stop', 'retry'])
    expect(verdicts(0x99)).toEqual(['stop', 'retry'])
    expect(verdicts(0x8e)).toEqual(['retry', 'stop'])
  })

  it.each(['', ' ', '\t'])('does not redirect to the blank Server Reference %j', serverReference => {
    for (const reasonCode of [0x9c, 0x9d])
      for (const code of ['CONNECT_REFUSED', 'CONNECTION_LOST'] as const)
        expect(verdictOf(new MqttError(code, 'x', { reasonCode, serverReference }))).toBe('retry')
  })
})
