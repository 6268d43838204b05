import { LANES } from './lanes.js'
import uPlot from './uplot/uPlot.esm.js'

/** The charts show as much as there is, up to a minute. */
const WINDOWS_S = [20, 40, 60]
const LONGEST_S = 60
const MARGIN_S = 0.5

/** Draws ages and drops. `data` has the numbers that are drawn, in seconds. */
export class Charts {
  /** Per chart: times, then one list of values for each truck. */
  ages
  drops
  #plots = []
  #hosts

  constructor(ageHost, dropHost, compared) {
    this.compared = compared
    this.#hosts = [ageHost, dropHost]
    this.ages = empty(compared)
    this.drops = empty(compared)
    this.#create()
    // The colours of a canvas do not follow the style sheet.
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.#create())
    new ResizeObserver(() => this.#resize()).observe(ageHost)
  }

  add(samples) {
    for (const { atMs, agesMs, dropsPerSecond } of samples) {
      push(
        this.ages,
        atMs,
        agesMs.map(ageMs => (ageMs === null ? null : ageMs / 1_000)),
      )
      push(this.drops, atMs, dropsPerSecond)
    }
    this.#draw()
  }

  clear() {
    this.ages = empty(this.compared)
    this.drops = empty(this.compared)
  }

  #create() {
    for (const plot of this.#plots) plot.destroy()
    const [ageHost, dropHost] = this.#hosts
    this.#plots = [
      new uPlot(
        this.#options(ageHost, value => `${value} s`, 2),
        this.ages,
        ageHost,
      ),
      new uPlot(
        this.#options(dropHost, value => `${value}`, 10),
        this.drops,
        dropHost,
      ),
    ]
  }

  #draw() {
    this.#plots[0].setData(this.ages)
    this.#plots[1].setData(this.drops)
  }

  #resize() {
    for (const [index, plot] of this.#plots.entries()) plot.setSize(sizeOf(this.#hosts[index]))
  }

  #options(host, label, least) {
    const axis = {
      stroke: colour('--muted'),
      grid: { stroke: colour('--grid'), width: 1 },
      ticks: { show: false },
      font: '12px system-ui, sans-serif',
    }
    return {
      ...sizeOf(host),
      cursor: { show: false },
      legend: { show: false },
      scales: {
        x: { time: true, range: () => windowOf(this.ages[0]) },
        y: { range: (_plot, _min, max) => [0, Math.max(least, (max ?? 0) * 1.1)] },
      },
      axes: [
        {
          ...axis,
          size: 30,
          splits: (_plot, _axis, min, max) => quartersOf(min, max),
          values: (_plot, splits) => splits.map(at => ago(splits.at(-1) - at)),
        },
        { ...axis, values: (_plot, splits) => splits.map(label), size: 48, space: 36 },
      ],
      series: [{}, ...this.compared.map(({ kind }) => seriesOf(kind))],
    }
  }
}

function seriesOf(kind) {
  const { name, dash, width } = LANES[kind]
  return { label: name, stroke: colour(`--${kind}`), width, dash, points: { show: false }, spanGaps: false }
}

function quartersOf(first, last) {
  const now = last - MARGIN_S
  return [4, 3, 2, 1, 0].map(quarter => now - ((now - first) * quarter) / 4)
}

function ago(seconds) {
  return seconds < 1 ? 'now' : `−${Math.round(seconds)} s`
}

function windowOf(times) {
  const now = times.at(-1) ?? Date.now() / 1_000
  const recorded = now - (times[0] ?? now)
  const seconds = WINDOWS_S.find(one => one >= recorded) ?? LONGEST_S
  return [now - seconds, now + MARGIN_S]
}

function empty(compared) {
  return [[], ...compared.map(() => [])]
}

function push(data, atMs, values) {
  data[0].push(atMs / 1_000)
  for (const [index, value] of values.entries()) data[index + 1].push(value)
  const first = data[0].findIndex(at => at >= atMs / 1_000 - LONGEST_S - 1)
  if (first > 0) for (const list of data) list.splice(0, first)
}

function sizeOf(host) {
  return { width: host.clientWidth, height: host.clientHeight }
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim()
}
