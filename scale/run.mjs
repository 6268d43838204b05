// npm run scale -- [--only throughput,faults,ends,devices] [--seconds 3] [--devices 200] [--idle 5000] [--write]
import { readFileSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { connectionLines, connections } from './connections.mjs'
import { ends, endsLaw, endsTable } from './ends.mjs'
import { faults, faultsTable } from './faults.mjs'
import { bytesOfReading, millionTable } from './million.mjs'
import { throughput, throughputTable } from './throughput.mjs'
import { roundsIn } from './work.mjs'

const PARTS = ['throughput', 'faults', 'ends', 'devices']
const DEADLINE_MS = 15 * 60_000
const CPU_MS = 0.5
const WAIT_MS = 5

const { values } = parseArgs({
  options: {
    only: { type: 'string', default: PARTS.join(',') },
    seconds: { type: 'string', default: '3' },
    devices: { type: 'string', default: '200' },
    idle: { type: 'string', default: '5000' },
    write: { type: 'boolean', default: false },
  },
})
const parts = values.only.split(',')
const [seconds, devices, idle] = [values.seconds, values.devices, values.idle].map(Number)
if (parts.some(part => !PARTS.includes(part)) || ![seconds, devices, idle].every(value => value > 0)) {
  console.error(
    `usage: npm run scale -- [--only ${PARTS.join(',')}] [--seconds <number>] [--devices <number>] [--idle <number>] [--write]`,
  )
  process.exit(2)
}

const say = line => console.log(line)
const laws = []
/** Tables by the name that they have in the page. */
const blocks = new Map()
function show(name, text) {
  blocks.set(name, text)
  say(`\n${text}`)
}

/** Replaces the tables of the page by those of this run. */
function writePage() {
  const page = new URL('../docs/scaling.md', import.meta.url)
  let text = readFileSync(page, 'utf8')
  for (const [name, block] of blocks)
    text = text.replace(
      new RegExp(`(<!-- npm run scale: ${name} -->\n\n\`\`\`text\n)[^]*?(\n\`\`\`)`),
      (_, before, after) => `${before}${block}${after}`,
    )
  writeFileSync(page, text)
}
let rows
let idleFigures

setTimeout(() => {
  console.error('FAILED: the run did not finish within its deadline')
  process.exit(1)
}, DEADLINE_MS).unref()

const { model } = cpus()[0]
say(`Node ${process.versions.node}, ${cpus().length} x ${model}; broker, devices and service on this machine`)

if (parts.includes('throughput')) {
  say(`\nThroughput: ${devices} devices publish at QoS 1, at most 256 messages are on their way`)
  const handlers = [
    { name: `uses ${CPU_MS} ms CPU`, work: { rounds: roundsIn(CPU_MS) } },
    { name: `waits ${WAIT_MS} ms`, work: { waitMs: WAIT_MS } },
  ]
  rows = await throughput(handlers, { devices, seconds, say })
  show('throughput', throughputTable(rows))
}
if (parts.includes('faults')) {
  say('\nFaults: 400 messages per second at QoS 1, persistent sessions')
  const verdict = await faults({ devices, perSecond: 400, pauseMs: 1_500, say })
  show('faults', faultsTable(verdict))
  laws.push(...verdict.laws)
}
if (parts.includes('ends')) {
  say('\nThe end of one of two members: 200 messages per second at QoS 1, of which some wait')
  const endRows = await ends({ devices, say })
  show('ends', endsTable(endRows))
  laws.push(endsLaw(endRows))
}
if (parts.includes('devices')) {
  say('\nIdle devices')
  idleFigures = await connections({ count: idle, say })
  show('devices', connectionLines({ ...idleFigures, ...bytesOfReading() }))
}
if (rows !== undefined && idleFigures !== undefined) {
  const waiting = rows.find(({ name }) => name.startsWith('waits'))
  const { brokerMicros, serviceMicros } = waiting
  say('\nCalculated from the figures above, one reading per device and minute, cores used to 70 %')
  show('million', millionTable({ ...idleFigures, brokerMicros, serviceMicros }))
}

const broken = laws.filter(([, examples]) => examples.length > 0)
for (const [text, examples] of broken) console.error(`FAILED: ${text}: ${examples.slice(0, 5).join('; ')}`)
if (broken.length === 0 && laws.length > 0) say(`\nAll ${laws.length} laws hold.`)
if (broken.length === 0 && values.write) writePage()
process.exit(broken.length === 0 ? 0 : 1)
