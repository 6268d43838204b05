// The broker, the devices and the processes of the service.
import { cpus } from 'node:os'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { startMosquitto } from '../bench/mosquitto.mjs'
import { ownFolder } from '../bench/owned.mjs'
import { cpuMicrosOf } from '../bench/rounds.mjs'
import { Remote } from '../soak/remote.mjs'

const fileOf = kind => fileURLToPath(new URL(`${kind}-process.mjs`, import.meta.url))
const IDLE_POLL_MS = 100
/** After this number of polls without a waiting message, a process has caught up with its queue at the broker. */
const IDLE_POLLS = 8
const remotes = new Set()
process.once('exit', () => {
  for (const { child } of remotes) child.kill('SIGKILL')
})

async function start(kind, role) {
  const remote = new Remote(fileOf(kind), role, { execArgv: ['--no-warnings'] })
  remotes.add(remote)
  remote.closed.then(() => remotes.delete(remote))
  await remote.ready
  return remote
}

/** CPU time that all programs of this machine have used. */
function busyMs() {
  return cpus().reduce((sum, { times }) => sum + times.user + times.nice + times.sys + times.irq, 0)
}

/** One run: a broker, devices, and any number of processes of the service. */
export class Group {
  members = new Map()

  /** @param role what all processes of the service have in common */
  static async open({ devices, role }) {
    const group = new Group()
    group.broker = await startMosquitto()
    group.load = await start('load', { url: group.broker.url, devices })
    group.folder = ownFolder()
    group.role = { url: group.broker.url, sharedGroup: 'scale', clean: true, ...role }
    return group
  }

  /** Starts a process. It writes what it has handled into one journal for all of its lives. */
  async add(name, role = {}) {
    const member = await start('service', { ...this.role, name, ...role })
    this.members.set(name, member)
    return member
  }

  journalOf(name) {
    return join(this.folder, `${name}.journal`)
  }

  async kill(name) {
    await this.members.get(name).kill()
    this.members.delete(name)
  }

  /** SIGTERM. Resolves with the exit code. */
  async terminate(name) {
    const { child, closed } = this.members.get(name)
    child.kill('SIGTERM')
    await closed
    this.members.delete(name)
    return child.exitCode
  }

  /** Resolves when no message waits for a handler of this process any more. */
  async whenCaughtUp(name) {
    for (let idle = 0; idle < IDLE_POLLS; ) {
      await wait(IDLE_POLL_MS)
      const { waiting } = await this.members.get(name).call('sample')
      idle = waiting === 0 ? idle + 1 : 0
    }
  }

  /** What every process has used and done so far. */
  async sample() {
    const names = [...this.members.keys()]
    const services = await Promise.all(names.map(name => this.members.get(name).call('sample')))
    const load = await this.load.call('sample')
    const brokerMicros = cpuMicrosOf(this.broker.pid())
    return { services, load, brokerMicros, busyMs: busyMs(), atMs: performance.now() }
  }

  async close() {
    for (const name of [...this.members.keys()]) await this.kill(name)
    await this.load.kill()
    await this.broker.stop()
  }
}
