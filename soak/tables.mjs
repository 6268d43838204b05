/** Rows of words as text with aligned columns. */
export function table(rows) {
  const widths = rows[0].map((_, column) => Math.max(...rows.map(row => String(row[column]).length)))
  return rows
    .map(row =>
      row
        .map((cell, column) => String(cell).padEnd(widths[column]))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

const listOf = counts =>
  Object.entries(counts)
    .filter(([, count]) => count > 0)
    .map(([name, count]) => `${count} ${name}`)
    .join(', ')

const megabytes = bytes => (bytes / 1_048_576).toFixed(1)

function messagesOf({ publishes, witnessed, handled, deadLetters, withoutGroup }) {
  if (publishes === undefined) return []
  return [
    `${publishes} publishes; the witness received ${witnessed.distinct} of them in ${witnessed.copies} copies`,
    `${handled.distinct} handled in ${handled.runs} runs, ${deadLetters} dead letters; ${withoutGroup} arrived at the broker before a service had subscribed again`,
  ]
}

/** The result of a run, for people. */
export function tablesOf({ conductor, verdict, reports, laws, cpuMs, wallMs }) {
  const { stage, faults, quietPoints } = conductor
  const processes = stage.actors.map(({ name, life, kills }, index) => {
    const { connection, inbound } = reports[index]?.stats ?? {}
    const of = what =>
      quietPoints.length === 0 ? '' : `${quietPoints[0][index][what]} → ${quietPoints.at(-1)[index][what]}`
    const heap =
      quietPoints.length === 0
        ? ''
        : `${megabytes(quietPoints[0][index].heapBytes)} → ${megabytes(quietPoints.at(-1)[index].heapBytes)}`
    return [
      name,
      life,
      kills,
      connection?.losses ?? '?',
      inbound?.received ?? '?',
      heap,
      of('timers'),
      of('handles'),
      of('descriptors'),
      of('listeners'),
    ]
  })
  return [
    '',
    `faults: ${listOf(faults.counts)} (${stage.lostPings} PINGRESP packets)`,
    `operations: ${listOf(verdict.operations)}`,
    '',
    table([
      [
        'process',
        'lives',
        'kills',
        'losses*',
        'received*',
        'heap MB',
        'timers',
        'handles',
        'descriptors',
        'listeners',
      ],
      ...processes,
    ]),
    '* of the last client',
    '',
    ...Object.entries(verdict.outcomes).map(([name, counts]) => `${name}: ${listOf(counts)}`),
    `requests: ${listOf(verdict.requests.ends)}; handlers ran ${verdict.requests.runs} times for ${verdict.requests.handled} of them`,
    ...messagesOf(verdict),
    `CPU: ${Math.round(cpuMs)} ms in ${Math.round(wallMs)} ms, ${((100 * cpuMs) / wallMs).toFixed(0)} % of one core (without the broker and killed processes)`,
    '',
    table([
      ['law', 'checks', 'broken', ''],
      ...laws.map(({ name, text, checks, broken }) => [name, checks, broken === 0 ? '-' : broken, text]),
    ]),
    '',
    ...laws.flatMap(({ name, examples }) => examples.map(example => `${name}: ${example}`)),
  ].join('\n')
}
