import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import {
  CONNACK_RULES,
  CONNACK_RULES_3_1_1,
  DISCONNECT_RULES,
  type ReasonCodeRule,
} from '../../../../src/core/connection/reconnect-rules.js'
import { resolveOptions } from '../../../../src/options/option-checks.js'
import type { Verdict } from '../../../../src/options/options.js'
import {
  hex,
  MQTT_3_1_1_CONNACK,
  MQTT_5_CONNACK,
  MQTT_5_DISCONNECT,
  type SpecifiedCode,
} from './specified-reason-codes.js'

const text = readFileSync(new URL('../../../../docs/reconnect.md', import.meta.url), 'utf8')

/** The text below a heading, up to the next heading of the same rank. */
function section(heading: string): string {
  const [, ...sections] = text.split(/^## /m)
  const found = sections.filter(one => one.startsWith(`${heading}\n`))
  expect(found, heading).toHaveLength(1)
  return found[0] ?? ''
}

/** The rows of the table in a section, below its head. */
function tableOf(heading: string): { readonly head: string[] | undefined; readonly rows: string[][] } {
  const [head, , ...rows] = section(heading)
    .split('\n')
    .filter(line => line.startsWith('|'))
    .map(line =>
      line
        .slice(1, -1)
        .split('|')
        .map(cell => cell.trim()),
    )
  return { head, rows }
}

const TABLES: readonly {
  readonly heading: string
  readonly rules: readonly ReasonCodeRule[]
  readonly specified: readonly SpecifiedCode[]
}[] = [
  { heading: 'CONNACK, MQTT 5', rules: CONNACK_RULES, specified: MQTT_5_CONNACK },
  { heading: 'CONNACK, MQTT 3.1.1', rules: CONNACK_RULES_3_1_1, specified: MQTT_3_1_1_CONNACK },
  { heading: 'DISCONNECT, MQTT 5', rules: DISCONNECT_RULES, specified: MQTT_5_DISCONNECT },
]

describe('docs/reconnect.md', () => {
  it.each(TABLES)('under "$heading" matches the code, row by row', ({ heading, rules, specified }) => {
    const names = new Map(specified)
    const { head, rows } = tableOf(heading)
    expect(head).toEqual(['Code', 'Name', 'Action', 'Why'])
    expect(rows).toEqual(
      rules.map(({ reasonCode, verdict, why }) => [
        hex(reasonCode),
        names.get(reasonCode),
        `\`${verdict}\``,
        why,
      ]),
    )
  })

  it('explains every verdict, and no other', () => {
    const verdicts: Readonly<Record<Verdict, true>> = {
      retry: true,
      'retry-with-fresh-credentials': true,
      'go-elsewhere': true,
      stop: true,
    }
    const explained = tableOf('What happens').rows.map(([verdict]) => verdict)
    expect(explained).toEqual(Object.keys(verdicts).map(verdict => `\`${verdict}\``))
  })

  it('names the defaults of the code', () => {
    const { delayMs, resetAfterMs } = resolveOptions({ url: 'mqtt://h' }).reconnect
    if (typeof delayMs === 'function' || !('jitter' in delayMs)) throw new Error('another kind of default')
    const { min, max, jitter } = delayMs
    expect(text).toContain(`\`{ min: ${min}, max: ${max}, jitter: '${jitter}' }\``)
    expect(section('Delays')).toContain(`The default is ${resetAfterMs} milliseconds.`)
  })

  it('has no number besides those defaults, Reason Codes and versions', () => {
    const prose = text.replace(/^\|.*$/gm, '')
    const numbers = prose.match(/(?<![\w.])\d[\w.]*/g) ?? []
    const { delayMs, resetAfterMs } = resolveOptions({ url: 'mqtt://h' }).reconnect
    const backed = [...Object.values(delayMs), resetAfterMs, '5', '3.1.1', '3.1.1.', '0x00'].map(String)
    for (const number of numbers) expect(backed).toContain(number)
  })
})
