// A row: the measurements of each subject, and their budgets.

/** A larger difference is significant: the timings of one run vary by about as much. */
export const NOISE = 0.05

/** Unit of each figure, and whether a higher value is better. */
const FIGURES = {
  perSecond: { label: 'rate', unit: '/s', isMoreBetter: true },
  cpuMicros: { label: 'CPU', unit: ' µs', isMoreBetter: false },
  p50Ms: { label: 'p50', unit: ' ms', isMoreBetter: false },
  p99Ms: { label: 'p99', unit: ' ms', isMoreBetter: false },
  ms: { label: 'time', unit: ' ms', isMoreBetter: false },
  kilobytes: { label: 'memory', unit: ' KB', isMoreBetter: false },
  micros: { label: 'cost', unit: ' µs', isMoreBetter: false },
  lost: { label: 'responses', unit: ' lost', isMoreBetter: false },
}

export const SUBJECT_NAMES = {
  ours: 'nestjs-mqtt',
  before: 'before',
  mqtt: 'mqtt',
  builtIn: 'built-in',
  floor: 'floor',
  off: 'instrumentation off',
  metrics: 'with metrics',
  traced: 'with traces and metrics',
}

/** This package must not be slower, or use more CPU, than `peer`. */
export const neverWorseThan = peer => [
  { figure: 'perSecond', peer, atLeast: 1 - NOISE },
  { figure: 'cpuMicros', peer, atMost: 1 + NOISE },
]

/** With another checkout to compare with, its figures decide instead. */
const againstBefore = figures => {
  const [figure] = Object.keys(figures.ours)
  return [
    { figure, peer: 'before', ...(isMoreBetter(figure) ? { atLeast: 1 - NOISE } : { atMost: 1 + NOISE }) },
    { figure: 'cpuMicros', peer: 'before', atMost: 1 + NOISE },
  ]
}

/**
 * @param figures figures by subject: `ours` and any of `before`, `mqtt`, `builtIn`, `floor`
 * @param budgets each limits a figure of ours, divided by that of `peer` where one is named; a later one replaces an earlier
 * one for the same figure and peer
 */
export function rowOf(name, figures, budgets = []) {
  const limits = figures.before === undefined ? budgets : againstBefore(figures)
  const byKind = new Map(limits.map(budget => [`${budget.figure} ${budget.peer}`, budget]))
  const judged = [...byKind.values()].map(budget => {
    const { figure, peer } = budget
    const value = figures.ours[figure] / (peer === undefined ? 1 : figures[peer][figure])
    const isKept = value >= (budget.atLeast ?? -Infinity) && value <= (budget.atMost ?? Infinity)
    return { ...budget, value, isKept }
  })
  return { name, figures, budgets: judged, isKept: judged.every(({ isKept }) => isKept) }
}

const digits = value => (Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2)

export function formatted(figure, value) {
  const { unit } = FIGURES[figure]
  const isCount = figure === 'perSecond' || figure === 'lost'
  return `${isCount ? Math.round(value).toLocaleString('en') : value.toFixed(digits(value))}${unit}`
}

/** Returns the figures of one subject, the main one first. */
export const cellOf = figures =>
  figures === undefined
    ? ''
    : Object.keys(FIGURES)
        .filter(figure => Number.isFinite(figures[figure]) && !(figure === 'lost' && figures.lost === 0))
        .map(figure => formatted(figure, figures[figure]))
        .join(', ')

export function budgetOf({ figure, peer, atLeast, atMost }) {
  const limit = atLeast === undefined ? `≤ ${atMost}` : `≥ ${atLeast}`
  const { label, unit } = FIGURES[figure]
  return peer === undefined ? `${label} ${limit}${unit}` : `${label} ${limit} × ${SUBJECT_NAMES[peer]}`
}

export function ratioOf({ figure, peer, value, isKept }) {
  const { label } = FIGURES[figure]
  const shown = peer === undefined ? formatted(figure, value) : `× ${value.toFixed(2)} ${SUBJECT_NAMES[peer]}`
  return `${label} ${shown}${isKept ? '' : ' !'}`
}

export const mainFigureOf = figures =>
  Object.keys(FIGURES).find(figure => Number.isFinite(figures.ours[figure]))
export const isMoreBetter = figure => FIGURES[figure].isMoreBetter
