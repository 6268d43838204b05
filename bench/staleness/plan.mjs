// Which rows there are, which of them run at the same time, and what is asked of ours.

export const WARM_UP_MS = 5_000
export const PAYLOAD_BYTES = 1_000
export const SECONDS = Number(process.env.STALENESS_SECONDS ?? 15)

const TICK_MS = 10
const SUBJECTS = ['ours', 'kernel', 'mqtt', 'paho']
const TRANSPORTS = ['tcp', 'tls']
const RATES = { '10KB': 10_000, '50KB': 50_000, '1MB': 1_000_000, unlimited: null }
const FACTORS = { '10x': 10, '1x': 1, '0.5x': 0.5 }

/** Payload bytes a second, in even ticks. */
export const evenly = bytesPerSecond => ({
  perTick: (bytesPerSecond / PAYLOAD_BYTES) * (TICK_MS / 1_000),
  tickMs: TICK_MS,
  isBurst: false,
})

const UNLIMITED_LOADS = {
  bursts: { perTick: 200, tickMs: TICK_MS, isBurst: true },
  modest: evenly(2_000_000),
}

function loadsOf(link) {
  if (RATES[link] === null) return UNLIMITED_LOADS
  return Object.fromEntries(
    Object.entries(FACTORS).map(([name, factor]) => [name, evenly(RATES[link] * factor)]),
  )
}

/**
 * Rows that run at the same time have the same key. Fast ones are few, so that they do not share the processor with
 * what they are compared with.
 */
function groupOf({ link, transport, subject, load }) {
  if (link === 'unlimited') return [link, transport, load, load === 'bursts' ? subject : ''].join(' ')
  return [link, transport, link === '1MB' ? subject : ''].join(' ')
}

/** The words that can be given, in any order; of each kind, those that are given select. */
const KINDS = {
  link: Object.keys(RATES),
  transport: TRANSPORTS,
  load: [...Object.keys(FACTORS), ...Object.keys(UNLIMITED_LOADS)],
  subject: SUBJECTS,
}

/** What the words of the command line ask for: groups of rows, and the transports of the steps of the rate. */
export function plan(words) {
  const unknown = words.filter(word => word !== 'steps' && !Object.values(KINDS).flat().includes(word))
  if (unknown.length > 0)
    throw new Error(
      `unknown: ${unknown.join(', ')}; there are: ${Object.values(KINDS).flat().join(', ')}, steps`,
    )
  const chosen = kind => {
    const given = KINDS[kind].filter(word => words.includes(word))
    return given.length > 0 ? given : KINDS[kind]
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
  for (const link of chosen('link'))
    for (const transport of chosen('transport'))
      for (const [load, shape] of Object.entries(loadsOf(link)))
        for (const subject of chosen('load').includes(load) ? chosen('subject') : [])
          rows.push({ link, bytesPerSecond: RATES[link], transport, load, shape, subject })
  return rows
}

/** maxDelayMs of ours, which it has by default. */
export const MAX_DELAY_MS = 1_000
const ROUND_TRIP_MS = 5
const MAX_BACKLOG_BYTES = 256 * 1_024

/** What of its budget a row of ours missed; undefined: it has none. */
export function missed({ subject, load, result }) {
  if (subject !== 'ours') return undefined
  if (result === undefined) return ['result']
  if (load === '1x') return undefined
  const limits =
    load === '10x'
      ? {
          'p99 age': result.p99Ms <= 1.2 * MAX_DELAY_MS + ROUND_TRIP_MS,
          'link use': result.linkUse >= 0.95,
          backlog: result.backlogBytes <= MAX_BACKLOG_BYTES,
        }
      : { drops: result.droppedInWarmUp + result.dropped === 0 }
  return Object.entries(limits)
    .filter(([, isKept]) => !isKept)
    .map(([name]) => name)
}
