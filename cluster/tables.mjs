import { median } from './verdict.mjs'

const MOST_EXAMPLES = 5

/** Rows as text with aligned columns. */
function table(rows) {
  const widths = rows[0].map((_, column) => Math.max(...rows.map(row => String(row[column]).length)))
  const line = row => row.map((cell, column) => String(cell).padEnd(widths[column]))
  return rows.map(row => line(row).join('  ').trimEnd())
}

function milliseconds(value) {
  if (value === undefined) return '-'
  return Number.isFinite(value) ? `${value.toLocaleString('en')} ms` : 'never'
}

const listOf = ends =>
  Object.entries(ends)
    .sort(([, a], [, b]) => b - a)
    .map(([end, count]) => `${count} ${end}`)
    .join(', ')

/** The result of a run, for people. @returns the text, and whether something that was promised is missing */
export function tablesOf({ title, conductor, problem }) {
  const { kills, endedMs = Date.now(), seconds, cluster } = conductor
  const evidence = conductor.evidence()
  const totals = [...evidence.totals()]
  const missing = evidence.missing()
  const unknown = evidence.unknown()
  const effects = kills.map((kill, index) => ({
    ...kill,
    ...evidence.effectOf(kill, kills[index + 1]?.atMs ?? endedMs),
  }))
  const columns = ['connected', 'acknowledged', 'handled', 'wholeMs']
  const summary = (name, of) => [
    name,
    '',
    '',
    ...columns.map(column => milliseconds(of(effects.map(effect => effect[column])))),
  ]
  const most = values => {
    const known = values.filter(value => value !== undefined)
    return known.length === 0 ? undefined : Math.max(...known)
  }
  const lines = [
    '',
    `${title}: 3 nodes, ${cluster.what}, ${kills.length} kills${seconds === undefined ? '' : ` in ${seconds.toFixed(0)} s`}`,
    '',
    ...table([
      ['kill', 'node', 'cut', 'connected', 'acknowledged', 'handled', 'node back'],
      ...effects.map((effect, index) => [
        index + 1,
        effect.name,
        effect.cut,
        ...columns.map(column => milliseconds(effect[column])),
      ]),
      ...(effects.length > 1 ? [summary('p50', median), summary('max', most)] : []),
    ]),
    '',
    ...table([
      ['publisher', 'publishes', 'handled', 'repeats', 'missing', 'ends'],
      ...totals.map(([name, { publishes, handled, repeats, ends }]) => [
        name,
        publishes,
        handled,
        repeats,
        missing.filter(id => id.startsWith(`${name} `)).length,
        listOf(ends),
      ]),
    ]),
    '',
  ]
  if (problem !== undefined) lines.push(`FAILED: ${problem}`)
  if (conductor.left > 0) lines.push(`FAILED: ${conductor.left} publishes have not settled`)
  if (unknown.length > 0)
    lines.push(`FAILED: handled, but never published: ${unknown.slice(0, MOST_EXAMPLES)}`)
  if (missing.length === 0) lines.push('Nothing that was acknowledged or stored is lost.')
  else if (problem !== undefined) lines.push(`Not handled by then: ${missing.length} messages`)
  else lines.push(`LOST: ${missing.length} messages, such as ${missing.slice(0, MOST_EXAMPLES).join(', ')}`)
  const isLost = missing.length > 0 || unknown.length > 0 || conductor.left > 0
  return { text: lines.join('\n'), isLost }
}
