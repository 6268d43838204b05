// npm run dashboard:check: runs every query of the Grafana dashboard against a Prometheus that scrapes clients under load.
// Fails if a query has an error or no data. Needs mosquitto and prometheus.
// With -- --scrape=localhost:3000 it scrapes an application that runs already, such as the sample, for a minute. Then it fails only
// for a query with an error, because an application without a failure has no data in the panels for failures.
import { readFileSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { PrometheusExporter } from '@opentelemetry/exporter-prometheus'
import { MeterProvider } from '@opentelemetry/sdk-metrics'
import { startMosquitto } from '../bench/mosquitto.mjs'
import { FILE } from './dashboard/dashboard.mjs'
import { Load } from './dashboard/load.mjs'
import { freePort, Prometheus } from './dashboard/prometheus.mjs'

const LIMIT_MS = 60_000
const WINDOW = '15s'
const STEP_SECONDS = 1
const NO_DATA = 'no data'

const { panels, templating } = JSON.parse(readFileSync(FILE, 'utf8'))
const queries = panels
  .filter(({ type }) => type !== 'row')
  .flatMap(({ title, targets }) => targets.map(({ expr }) => ({ title, expr })))
const variables = templating.list.filter(({ type }) => type === 'query')

/** With the values that Grafana would insert. */
const inserted = expr => expr.replaceAll('$__rate_interval', WINDOW).replaceAll(/\$(job|broker)/g, '.*')

const target = process.argv.find(arg => arg.startsWith('--scrape='))?.slice('--scrape='.length)
const source =
  target === undefined ? await startLoad() : { target, round: async () => {}, stop: async () => {} }
const prometheus = await Prometheus.start(source.target)
const { version } = await prometheus.get('status/buildinfo')

const startMs = performance.now()
let results = []
while (performance.now() - startMs < LIMIT_MS) {
  await source.round()
  results = await Promise.all([...queries.map(ofQuery), ...variables.map(ofVariable)])
  if (results.every(({ problem }) => problem === undefined)) break
  await pause(target === undefined ? 100 : 1_000)
}
for (const result of results) console.log(lineOf(result))
const withoutData = results.filter(({ problem }) => problem !== undefined)
const failed = target === undefined ? withoutData : withoutData.filter(({ problem }) => problem !== NO_DATA)
const seconds = Math.round((performance.now() - startMs) / 1_000)
console.log(
  `\nPrometheus ${version}: ${results.length - withoutData.length} of ${results.length} queries have data after ${seconds} s`,
)
await prometheus.stop()
await source.stop()
process.exitCode = failed.length === 0 ? 0 : 1

/** Clients of this process under load, on a mosquitto of their own. */
async function startLoad() {
  const mosquitto = await startMosquitto()
  const port = await freePort()
  const exporter = new PrometheusExporter({ host: '127.0.0.1', port })
  const load = await Load.start(mosquitto, new MeterProvider({ readers: [exporter] }))
  const stop = async () => {
    await load.stop()
    await exporter.shutdown()
    await mosquitto.stop()
  }
  return { target: `127.0.0.1:${port}`, round: () => load.round(), stop }
}

/** As a panel of Grafana asks, over a range of time. */
async function ofQuery({ title, expr }) {
  const end = Date.now() / 1_000
  const range = { start: end - 60, end, step: STEP_SECONDS }
  try {
    const { result } = await prometheus.get('query_range', { query: inserted(expr), ...range })
    const series = result.map(({ metric, values }) => ({
      labels: Object.values(metric).join(' '),
      value: values.map(([, value]) => Number(value)).findLast(Number.isFinite),
    }))
    const filled = series.filter(({ value }) => value !== undefined)
    return { title, expr, series: filled, problem: filled.length === 0 ? NO_DATA : undefined }
  } catch (error) {
    return { title, expr, series: [], problem: error.message }
  }
}

async function ofVariable({ name, query }) {
  const [, selector, label] = /^label_values\((.*), (\w+)\)$/.exec(query.query)
  const values = await prometheus.get(`label/${label}/values`, { 'match[]': inserted(selector) })
  const series = values.map(value => ({ labels: value, value: 1 }))
  return {
    title: `variable ${name}`,
    expr: query.query,
    series,
    problem: values.length === 0 ? NO_DATA : undefined,
  }
}

function lineOf({ title, expr, series, problem }) {
  const shown = series.map(({ labels, value }) => `${labels || 'all'} ${Number(value.toPrecision(3))}`)
  return `${problem === undefined ? 'ok    ' : problem === NO_DATA ? 'empty ' : 'FAILED'}  ${title}: ${problem === undefined ? shown.join(', ') : `${problem}\n        ${expr}`}`
}
