// How old are messages on arrival over a slow link, if the publisher sends more than the link carries?
// npm run bench -- staleness [10KB 50KB 1MB 50KB+in 1MB+600ms unlimited] [10x 3x 1x 0.9x 0.5x bursts modest] [tcp tls] [ours kernel mqtt paho] [steps]
// npm run bench -- staleness --quick: ours on TCP alone, in 4 minutes. Only a run of everything is kept in results/.
import { mkdirSync, writeFileSync } from 'node:fs'
import { Child } from './child.mjs'
import { startMosquitto } from './mosquitto.mjs'
import { makeCertificate } from './staleness/certificate.mjs'
import { Bench } from './staleness/measure.mjs'
import { missed, plan, SECONDS, WARM_UP_MS } from './staleness/plan.mjs'
import { findPython } from './staleness/python.mjs'
import { runSteps } from './staleness/rate_steps.mjs'
import { ageTable, stepTable } from './staleness/table.mjs'

const results = new URL('results/', import.meta.url)

/** Started processes, ended in reverse order. */
const started = []

async function start({ isPahoNeeded }) {
  const python = findPython({ isPahoNeeded })
  const certificate = makeCertificate()
  const broker = await startMosquitto({ tls: certificate })
  started.push(() => broker.stop())
  const { child: subscriber } = await Child.start(
    process.execPath,
    new URL('staleness/age_subscriber.mjs', import.meta.url),
    { port: broker.port },
  )
  started.push(() => subscriber.end())
  return new Bench({ broker, subscriber, python, ca: certificate.cert })
}

async function measure({ groups, stepTransports }) {
  if (groups.length + stepTransports.length === 0) throw new Error('no row is all of what was asked for')
  const bench = await start({ isPahoNeeded: groups.flat().some(({ subject }) => subject === 'paho') })
  for (const [index, group] of groups.entries()) {
    await bench.run(group, SECONDS)
    console.error(`${index + 1} of ${groups.length}: ${group[0].link} ${group[0].transport}`)
  }
  const steps = await Promise.all(
    stepTransports.map(async transport =>
      (await runSteps(bench, transport)).map(step => ({ transport, ...step })),
    ),
  )
  return { rows: groups.flat(), steps: steps.flat() }
}

/** The 'kernel' option may be unavailable; any other error is a failure. */
const isLeftOut = ({ subject, failure }) => subject === 'kernel' && failure?.code === 'INVALID_OPTION'

function report({ rows, steps }) {
  const shown = rows.filter(row => !isLeftOut(row))
  if (shown.length > 0)
    console.log(
      `${SECONDS} s each; 'before' are drops of the ${WARM_UP_MS / 1_000} s before that\n${ageTable(shown)}`,
    )
  if (shown.length < rows.length) console.log("\nleft out: 'kernel', which this build does not have")
  for (const { link, load, transport, subject, failure } of shown)
    if (failure !== undefined) console.log(`\n${link} ${load} ${transport} ${subject}: ${failure.message}`)
  if (steps.length > 0)
    console.log(`\nThe rate of the link, 1 MB/s to 20 KB/s and back:\n${stepTable(steps)}`)
  if (process.argv.length === 3) keep({ shown, steps })
  const isMissed = shown.some(row => row.failure !== undefined || missed(row)?.length > 0)
  process.exitCode = isMissed || steps.some(({ isKept }) => !isKept) ? 1 : 0
}

function keep({ shown, steps }) {
  mkdirSync(results, { recursive: true })
  const ages = shown.map(row => {
    const { link, load, transport, subject, result, failure } = row
    return {
      link,
      load,
      transport,
      subject,
      ...result,
      failure: failure?.message,
      missed: missed(row)?.join(', '),
    }
  })
  writeFileSync(
    new URL('staleness.json', results),
    `${JSON.stringify({ seconds: SECONDS, ages, steps }, rounded, 2)}\n`,
  )
}

const rounded = (_, value) => (typeof value === 'number' ? Math.round(value * 1_000) / 1_000 : value)

try {
  report(await measure(plan(process.argv.slice(3))))
} catch (error) {
  console.error(error.message)
  process.exitCode = 2
} finally {
  for (const end of started.reverse()) await end()
  // The work of an interrupted run ends with the process.
  process.exit()
}
