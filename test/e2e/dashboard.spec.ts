import { readFileSync } from 'node:fs'
import { PrometheusExporter, PrometheusSerializer } from '@opentelemetry/exporter-prometheus'
import { MeterProvider } from '@opentelemetry/sdk-metrics'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { dashboardText, FILE } from '../../scripts/dashboard/dashboard.mjs'
import { Load } from '../../scripts/dashboard/load.mjs'
import { eventually } from '../support/eventually.js'
import { Mosquitto } from '../support/mosquitto.js'

/** Labels that Prometheus adds, and that of the buckets. */
const OF_PROMETHEUS = ['job', 'le']

const text = readFileSync(FILE, 'utf8')
interface Dashboard {
  readonly panels: readonly {
    readonly type: string
    readonly targets?: readonly { readonly expr: string }[]
  }[]
  readonly templating: { readonly list: readonly { readonly query: string | { readonly query: string } }[] }
}
const { panels, templating }: Dashboard = JSON.parse(text)
const shown = panels.filter(({ type }) => type !== 'row')
const expressions = [
  ...shown.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr)),
  ...templating.list.flatMap(({ query }) => (typeof query === 'string' ? [] : [query.query])),
]

/** The labels that an expression groups by. */
const groupsOf = (expr: string): string[] =>
  [...expr.matchAll(/\bby \(([^)]*)\)/g)].flatMap(([, list = '']) =>
    list.split(', ').filter(name => name !== ''),
  )

interface Selector {
  readonly metric: string
  readonly matchers: readonly { label: string; operator: string; value: string }[]
}

function selectorsOf(expr: string): Selector[] {
  return [...expr.matchAll(/\b((?:mqtt|messaging)_\w+)(?:\{([^}]*)\}|(?=, job\)))/g)].map(
    ([, metric = '', inner = '']) => ({
      metric,
      matchers: [...inner.matchAll(/(\w+)(=~|!=|=)"([^"]*)"/g)].map(
        ([, label = '', operator = '', value = '']) => ({ label, operator, value }),
      ),
    }),
  )
}

/** The series of each metric, as labels with their values. */
type Exported = ReadonlyMap<string, readonly ReadonlyMap<string, string>[]>

function parse(page: string): Exported {
  const exported = new Map<string, ReadonlyMap<string, string>[]>()
  for (const [, metric = '', labels = ''] of page.matchAll(/^(\w+)\{(.*)\} \S+/gm)) {
    const pairs = [...labels.matchAll(/(\w+)="([^"]*)"/g)].map(
      ([, label = '', value = '']) => [label, value] as const,
    )
    exported.set(metric, [...(exported.get(metric) ?? []), new Map(pairs)])
  }
  return exported
}

describe('the Grafana dashboard', () => {
  let broker: Mosquitto
  let load: Load
  let exported: Exported
  const exporter = new PrometheusExporter({ preventServerStart: true })
  const read = async (): Promise<Exported> =>
    parse(new PrometheusSerializer().serialize((await exporter.collect()).resourceMetrics))

  beforeAll(async () => {
    broker = await Mosquitto.start()
    load = await Load.start(broker, new MeterProvider({ readers: [exporter] }))
    await load.round()
    await eventually(async () => {
      exported = await read()
      const outcomes = exported.get('mqtt_client_deliveries_total')?.map(series => series.get('mqtt_outcome'))
      const counted = ['mqtt_client_redeliveries_total', 'mqtt_client_store_outcomes_total']
      return outcomes?.includes('deadLettered') === true && counted.every(metric => exported.has(metric))
    })
  })
  afterAll(async () => {
    await load.stop()
    await broker.stop()
  })

  it('is what its script writes', () => {
    expect(text).toBe(dashboardText())
  })

  it('has a query in every panel, each of one metric', () => {
    expect(shown.filter(({ targets = [] }) => targets.length === 0)).toEqual([])
    expect(expressions.filter(expr => selectorsOf(expr).length !== 1)).toEqual([])
  })

  it('asks only for metrics that the instrumentation exports', () => {
    const metrics = expressions.flatMap(selectorsOf).map(({ metric }) => metric)
    expect(metrics.filter(metric => !exported.has(metric))).toEqual([])
  })

  it('shows every metric that the instrumentation exports', () => {
    const base = (metric: string): string => metric.replace(/_(bucket|count|sum)$/, '')
    const asked = new Set(expressions.flatMap(selectorsOf).map(({ metric }) => base(metric)))
    const ours = [...exported.keys()].filter(metric => /^(mqtt|messaging)_/.test(metric))
    expect(ours.filter(metric => !asked.has(base(metric)))).toEqual([])
  })

  it.each(expressions)('asks for labels and values that its metric has: %s', expr => {
    for (const { metric, matchers } of selectorsOf(expr)) {
      const series = exported.get(metric) ?? []
      const labels = new Set([...OF_PROMETHEUS, ...series.flatMap(labelled => [...labelled.keys()])])
      const asked = [...matchers.map(({ label }) => label), ...groupsOf(expr)]
      expect(asked.filter(label => !labels.has(label))).toEqual([])
      const values = matchers.filter(({ operator, value }) => operator === '=' && value !== '')
      expect(
        values.filter(({ label, value }) => !series.some(labelled => labelled.get(label) === value)),
      ).toEqual([])
    }
  })
})
