// The rows, which of them run at the same time, and the requirements on this package.

const QUICK = '--quick'

export const WARM_UP_MS = 5_000
export const PAYLOAD_BYTES = 1_000
export const IS_QUICK = process.argv.includes(QUICK)
export const SECONDS = IS_QUICK ? 10 : 15

const TICK_MS = 10
const SUBJECTS = ['ours', 'kernel', 'mqtt', 'paho']
const TRANSPORTS = ['tcp', 'tls']
const LINKS = {
  '10KB': { bytesPerSecond: 10_000, loads: ['10x', '1x', '0.5x'] },
  '50KB': { bytesPerSecond: 50_000, loads: ['10x', '1x', '0.5x'] },
  '1MB': { bytesPerSecond: 1_000_000, loads: ['10x', '3x', '1x', '0.5x'] },
  // 20 KB/s of inbound traffic at the same time.
  '50KB+in': { bytesPerSecond: 50_000, inboundPerSecond: 20, loads: ['10x', '0.5x'], subjects: ['ours'] },
  '1MB+600ms': { bytesPerSecond: 1_000_000, roundTripMs: 600, loads: ['3x', '0.9x'], subjects: ['ours'] },
  unlimited: { bytesPerSecond: null, loads: ['bursts', 'modest'] },
}
const FACTORS = { '10x': 10, '3x': 3, '1x': 1, '0.9x': 0.9, '0.5x': 0.5 }

/** Payload bytes per second, in even ticks. */
export const evenly = bytesPerSecond => ({
  perTick: (bytesPerSecond / PAYLOAD_BYTES) * (TICK_MS / 1_000),
  tickMs: TICK_MS,
  isBurst: false,
})

const UNLIMITED_LOADS = {
  bursts: { perTick: 200, tickMs: TICK_MS, isBurst: true },
  modest: evenly(2_000_000),
}

const shapeOf = (link, load) =>
  link === 'unlimited' ? UNLIMITED_LOADS[load] : evenly(LINKS[link].bytesPerSecond * FACTORS[load])

/**
 * Rows with the same key run at the same time. Few fast rows do, so that they do not compete for the processor with the
 * subjects they are compared with.
 */
function groupOf({ link, transport, subject, load }) {
  if (link === 'unlimited') return [link, transport, load, load === 'bursts' ? subject : ''].join(' ')
  if (link === '1MB') return [link, transport, subject, load === '10x' ? load : ''].join(' ')
  return [link, transport].join(' ')
}

/** The arguments, in any order. Of each kind, the given ones select rows. */
const KINDS = {
  link: Object.keys(LINKS),
  transport: TRANSPORTS,
  load: [...Object.keys(FACTORS), ...Object.keys(UNLIMITED_LOADS)],
  subject: SUBJECTS,
}

/** Parses the arguments: groups of rows, and the transports of the rate steps. */
export function plan(given) {
  const quick = given.includes(QUICK) ? ['ours', 'tcp', 'steps', ...Object.keys(LINKS)] : []
  const words = [...given.filter(word => word !== QUICK), ...quick]
  const unknown = words.filter(word => word !== 'steps' && !Object.values(KINDS).flat().includes(word))
  if (unknown.length > 0)
    throw new Error(
      `unknown: ${unknown.join(', ')}; there are: ${Object.values(KINDS).flat().join(', ')}, steps`,
    )
  const chosen = kind => {
    const named = KINDS[kind].filter(word => words.includes(word))
    return named.length > 0 ? named : KINDS[kind]
  }
  // A transport alone narrows both parts; any other word asks for its part.
  const parts = words.filter(word => !TRANSPORTS.includes(word))
  const hasSteps = parts.length === 0 || parts.includes('steps')
  const hasRows = parts.length === 0 || parts.some(word => word !== 'steps')
  const rows = hasRows ? rowsOf(chosen) : []
  return {
    groups: [...new Set(rows.map(groupOf))].map(key => rows.filter(row => groupOf(row) === key)),
    stepTransports: hasSteps ? chosen('transport') : [],
  }
}

function rowsOf(chosen) {
  const rows = []
  for (const link of chosen('link')) {
    const { loads, subjects = SUBJECTS, ...conduct } = LINKS[link]
    const isIn = list => name => list.includes(name)
    for (const transport of chosen('transport'))
      for (const load of loads.filter(isIn(chosen('load'))))
        for (const subject of subjects.filter(isIn(chosen('subject'))))
          rows.push({ link, ...conduct, transport, load, shape: shapeOf(link, load), subject })
  }
  return rows
}

/** `maxDelayMs` of this package, its default. */
export const MAX_DELAY_MS = 1_000
const ROUND_TRIP_MS = 5
const MAX_BACKLOG_BYTES = 256 * 1_024

/**
 * Describes how a row of this package missed its budget; undefined without a budget. On a long round trip the window is
 * small for the first seconds, in which little can be sent.
 */
export function missed({ subject, load, result, roundTripMs = 0 }) {
  if (subject !== 'ours') return undefined
  if (result === undefined) return ['result']
  if (load === '1x') return undefined
  const limits =
    load === '10x' || load === '3x'
      ? {
          'p99 age': result.p99Ms <= 1.2 * MAX_DELAY_MS + roundTripMs + ROUND_TRIP_MS,
          'link use': result.linkUse >= 0.95,
          backlog: result.backlogBytes <= MAX_BACKLOG_BYTES,
        }
      : { drops: result.dropped + (roundTripMs > 0 ? 0 : result.droppedInWarmUp) === 0 }
  return Object.entries(limits)
    .filter(([, isKept]) => !isKept)
    .map(([name]) => name)
}
