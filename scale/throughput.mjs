// The same load on 1, 2 and 4 processes.
import { cpus } from 'node:os'
import { setTimeout as wait } from 'node:timers/promises'
import { table } from '../soak/tables.mjs'
import { Group } from './members.mjs'

const PROCESSES = [1, 2, 4]
const WARM_UP_MS = 1_000
/** Messages on their way to the handlers: enough for 16 handlers in each of 4 processes. */
const WINDOW = 256
/** Latency is measured at this share of the rate that one process can handle. */
const PACED_SHARE = 0.6

const quantile = (sorted, share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]

/** @returns the figures of one row */
async function measure(name, work, processes, { devices, seconds, pacedRate }) {
  const group = await Group.open({ devices, role: {} })
  const progressPort = await group.load.call('port')
  for (let number = 0; number < processes; number += 1)
    await group.add(`service-${number}`, { work, progressPort })

  await group.load.call('saturate', WINDOW)
  await wait(WARM_UP_MS)
  const from = await group.sample()
  await wait(seconds * 1_000)
  const to = await group.sample()
  await group.load.call('rest')

  const rate = ratesOf(from, to)
  await group.load.call('pace', pacedRate ?? rate.perSecond * PACED_SHARE)
  await wait(WARM_UP_MS)
  await group.sample()
  await wait(seconds * 1_000)
  const { services } = await group.sample()
  await group.load.call('rest')
  await group.close()
  const latencies = services.flatMap(service => service.latencies).sort((a, b) => a - b)
  return { name, processes, ...rate, p50Ms: quantile(latencies, 0.5), p99Ms: quantile(latencies, 0.99) }
}

function ratesOf(from, to) {
  const wallMs = to.atMs - from.atMs
  const handled = to.services.map((service, index) => service.handled - from.services[index].handled)
  const cpuMs = to.services.map((service, index) => service.cpuMs - from.services[index].cpuMs)
  const sum = list => list.reduce((total, value) => total + value, 0)
  const messages = sum(handled)
  const brokerMs = (to.brokerMicros - from.brokerMicros) / 1_000
  const loadMs = to.load.cpuMs - from.load.cpuMs
  const ownMs = sum(cpuMs) + brokerMs + loadMs
  return {
    perSecond: (messages * 1_000) / wallMs,
    shares: handled.map(count => count / messages),
    cores: cpuMs.map(ms => ms / wallMs),
    serviceMicros: (sum(cpuMs) * 1_000) / messages,
    brokerMicros: (brokerMs * 1_000) / messages,
    deviceMicros: (loadMs * 1_000) / messages,
    machine: ownMs / wallMs / cpus().length,
    other: Math.max(0, to.busyMs - from.busyMs - ownMs) / wallMs / cpus().length,
  }
}

/** @returns a row for each handler and number of processes */
export async function throughput(handlers, { devices, seconds, say }) {
  const rows = []
  for (const { name, work } of handlers) {
    let pacedRate
    for (const processes of PROCESSES) {
      const row = await measure(name, work, processes, { devices, seconds, pacedRate })
      pacedRate ??= row.perSecond * PACED_SHARE
      rows.push({ ...row, pacedRate })
      say(`  ${name}, ${processes} processes: ${Math.round(row.perSecond)} messages per second`)
    }
  }
  return rows
}

const percent = share => `${(100 * share).toFixed(0)} %`
const range = (values, format) => {
  const [least, most] = [format(Math.min(...values)), format(Math.max(...values))]
  return least === most ? least : `${least} to ${most}`
}

export function throughputTable(rows) {
  const firstOf = ({ name }) => rows.find(row => row.name === name)
  return table([
    [
      'handler',
      'processes',
      'per second',
      'gain',
      'share of each',
      'CPU per message',
      'CPU of each',
      'broker',
      'devices',
      'machine',
      'other',
      'p50',
      'p99',
      'at',
    ],
    ...rows.map(row => [
      row.name,
      row.processes,
      Math.round(row.perSecond),
      `x ${(row.perSecond / firstOf(row).perSecond).toFixed(2)}`,
      range(row.shares, percent),
      `${row.serviceMicros.toFixed(0)} µs`,
      range(row.cores, percent),
      `${row.brokerMicros.toFixed(0)} µs`,
      `${row.deviceMicros.toFixed(0)} µs`,
      percent(row.machine),
      percent(row.other),
      `${row.p50Ms.toFixed(1)} ms`,
      `${row.p99Ms.toFixed(1)} ms`,
      `${Math.round(row.pacedRate)}/s`,
    ]),
  ])
}
