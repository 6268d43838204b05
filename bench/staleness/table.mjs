// The results in a readable form.
import { missed } from './plan.mjs'

const count = value => Math.round(value).toLocaleString('en-US')
const ms = value =>
  value === undefined || value === null ? '-' : value < 10 ? value.toFixed(1) : count(value)
const kilobytes = value => count(value / 1_000)
const verdict = list => (list === undefined ? '' : list.length === 0 ? 'ok' : `MISSED: ${list.join(', ')}`)

function aligned(head, lines) {
  const widths = head.map((_, column) => Math.max(...[head, ...lines].map(line => line[column].length)))
  const isText = head.map((_, column) => lines.every(line => !/^-?[\d.,]+( .*|%)?$/.test(line[column])))
  const row = line =>
    line.map((cell, at) => (isText[at] ? cell.padEnd(widths[at]) : cell.padStart(widths[at]))).join('  ')
  return [head, widths.map(width => '-'.repeat(width)), ...lines].map(line => row(line).trimEnd()).join('\n')
}

const NAMES = { ours: 'nestjs-mqtt', kernel: "nestjs-mqtt, 'kernel'", mqtt: 'mqtt', paho: 'paho on asyncio' }

export function ageTable(rows) {
  const head = ['link/s', 'load', 'transport', 'subject', 'p50 ms', 'p99 ms', 'max ms', 'link use', 'offered']
  head.push('delivered', 'dropped', 'before', 'backlog KB', 'memory +KB', 'budget')
  return aligned(
    head,
    rows.map(row => {
      const { link, load, transport, subject, result } = row
      const name = [link, load, transport, NAMES[subject]]
      if (result === undefined) return [...name, ...Array(10).fill('-'), verdict(missed(row))]
      const use =
        result.linkUse === null
          ? `${(result.linkBytesPerSecond / 1e6).toFixed(1)} MB/s`
          : `${(result.linkUse * 100).toFixed(1)}%`
      return [
        ...name,
        ms(result.p50Ms),
        ms(result.p99Ms),
        ms(result.maxMs),
        use,
        count(result.offered),
        count(result.delivered),
        count(result.dropped),
        count(result.droppedInWarmUp),
        kilobytes(result.backlogBytes),
        kilobytes(result.residentGrowthBytes),
        verdict(missed(row)),
      ]
    }),
  )
}

export function stepTable(steps) {
  return aligned(
    ['transport', 'step', 'in flight KB', 'max age ms', 'back after ms', 'allowed ms', 'budget'],
    steps.map(step => [
      step.transport,
      step.direction,
      step.inFlightBytes === undefined ? '-' : kilobytes(step.inFlightBytes),
      ms(step.maxAgeMs),
      step.tookMs === null ? 'never' : ms(step.tookMs),
      ms(step.allowedMs),
      step.isKept ? 'ok' : 'MISSED',
    ]),
  )
}
