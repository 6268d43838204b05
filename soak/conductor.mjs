// A run: storms with faults, calm phases in which everything must progress, and quiet points at which nothing may be left.
import { setTimeout as wait } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { FAULT_NAMES, inflictOne } from './faults.mjs'
import { leaks } from './leaks.mjs'
import { Random } from './random.mjs'
import { Remote } from './remote.mjs'
import { Stage } from './stage.mjs'

/** What each kind of process must do after a heal. */
const PROGRESS = {
  publisher: ['sent', 'acknowledged', 'acknowledged with store'],
  service: ['handled', 'responded'],
  consumer: ['response', 'stream', 'message', 'read', 'published'],
}
/** Time for a calm phase to show progress, and for everything to drain. */
const PATIENCE_MS = 60_000
const POLL_MS = 100
/** The journals of a quiet network have no new line for this time. */
const QUIET_POLLS = 5

export class Conductor {
  faults = Object.fromEntries(FAULT_NAMES.map(name => [name, 0]))
  quietPoints = []
  broken = []
  phase = 'start'

  constructor({ minutes, seed, broker, say }) {
    this.durationMs = minutes * 60_000
    this.say = say
    this.random = new Random(seed, 'conductor')
    this.seed = seed
    this.stage = new Stage({ seed, broker })
    this.stormMs = Math.min(20_000, Math.max(5_000, this.durationMs / 8))
  }

  get hasFailed() {
    return this.broken.length + this.stage.failures.length > 0
  }

  /** Time after which the run is stuck. */
  get deadlineMs() {
    return this.durationMs + 180_000
  }

  async run() {
    const startMs = performance.now()
    await this.stage.open(castOf(this.random))
    const elapsedMs = () => performance.now() - startMs
    do {
      await this.cycle()
      this.say(
        `${Math.round(elapsedMs() / 1_000)} s: quiet point ${this.quietPoints.length}, ${await this.stage.witness.call('count')} messages`,
      )
    } while (!this.hasFailed && elapsedMs() + this.stormMs < this.durationMs)
    return this.end()
  }

  async cycle() {
    const { stage } = this
    await this.everyActor('start')
    await this.storm()
    this.phase = 'heal'
    await stage.heal()
    await this.everyActor('start')
    await this.calm()
    if (!this.hasFailed) await this.quiet()
  }

  async storm() {
    this.phase = 'storm'
    const untilMs = performance.now() + this.stormMs
    const isLate = () => performance.now() >= untilMs
    while (!isLate() && !this.hasFailed) {
      const name = inflictOne(this.stage, this.random, isLate)
      if (name !== undefined) this.faults[name] += 1
      await wait(this.random.between(100, 700))
    }
  }

  /** Nothing starves: every process does each of its kinds of work. */
  async calm() {
    this.phase = 'calm'
    const before = await this.everyActor('report')
    const missing = async () => {
      const now = await this.everyActor('report')
      return this.stage.actors.flatMap(({ name, kind }, index) =>
        PROGRESS[kind]
          .filter(what => (now[index].progress[what] ?? 0) <= (before[index].progress[what] ?? 0))
          .map(what => `${name}: ${what}`),
      )
    }
    const left = await this.until(missing)
    if (left.length > 0)
      this.breaks('no starvation', `no progress ${PATIENCE_MS / 1_000} s after the heal: ${left.join(', ')}`)
  }

  /** Nothing is left: every process has finished what it began. */
  async quiet() {
    this.phase = 'quiet'
    const { actors, witness } = this.stage
    await this.everyActor('rest')
    let count = -1
    let quietPolls = 0
    const unfinished = async () => {
      const all = await this.everyActor('pending')
      const left = actors.flatMap(({ name }, index) =>
        Object.entries(all[index])
          .filter(([, number]) => number > 0)
          .map(([what, number]) => `${name}: ${what} ${number}`),
      )
      const now = await witness.call('count')
      quietPolls = left.length === 0 && now === count ? quietPolls + 1 : 0
      count = now
      if (left.length === 0 && quietPolls < QUIET_POLLS) return ['messages still arrive']
      return left
    }
    const left = await this.until(unfinished)
    if (left.length > 0)
      this.breaks('drains', `left ${PATIENCE_MS / 1_000} s after the last operation: ${left.join(', ')}`)
    else this.quietPoints.push(await this.everyActor('measure'))
  }

  /** @returns what is still missing when the patience ends, or nothing */
  async until(missing) {
    const untilMs = performance.now() + PATIENCE_MS
    let left = await missing()
    while (left.length > 0 && performance.now() < untilMs && this.stage.failures.length === 0) {
      await wait(POLL_MS)
      left = await missing()
    }
    return left
  }

  everyActor(method) {
    return Promise.all(this.stage.actors.map(actor => actor.call(method)))
  }

  breaks(law, what) {
    this.broken.push([law, what])
  }

  async end() {
    this.phase = 'end'
    const { actors, witness, folder } = this.stage
    const reports = await this.everyActor('report')
    const logs = this.hasFailed ? await this.everyActor('recentLog') : []
    const witnessReport = await witness.call('report')
    for (const actor of actors) {
      actor.remote.isExpectedToEnd = true
      await actor.call('finish').catch(error => !actor.remote.isAlive || this.stage.fail(error.message))
      await actor.remote.closed
    }
    const killed = Object.fromEntries(actors.map(each => [each.name, each.killed]))
    const verifier = new Remote(fileURLToPath(new URL('verifier-process.mjs', import.meta.url)), {
      folder,
      killed,
    })
    const verdict = await verifier.call('judge')
    await verifier.kill()
    const cpuMs = reports.reduce((sum, report) => sum + report.cpuMs, witnessReport.cpuMs)
    return { verdict, reports, logs, cpuMs }
  }

  /** The laws that the conductor checks itself. */
  ownLaws() {
    const law = (name, text, checks, more = []) => {
      const broken = [...this.broken.filter(([which]) => which === name).map(([, what]) => what), ...more]
      return { name, text, checks, broken: broken.length, examples: broken.slice(0, 5) }
    }
    const points = this.quietPoints.length
    return [
      law('drains', 'everything drains after each storm', points),
      law('no starvation', 'after each storm every process does all of its work again', points),
      law(
        'no leak',
        'heap, handles, timers, listeners, descriptors, slots and rows are the same at every quiet point',
        points,
        leaks(this.stage.actors, this.quietPoints),
      ),
      law('no crash', 'no process ended by itself, and no fault failed', 1, this.stage.failures),
    ]
  }
}

/** Two of each kind; one of them is never killed, so that a leak can grow. */
function castOf(random) {
  return [
    {
      name: 'publisher-1',
      kind: 'publisher',
      mayBeKilled: true,
      options: { clean: false, protocolVersion: 5 },
    },
    {
      name: 'publisher-2',
      kind: 'publisher',
      mayBeKilled: false,
      options: { clean: true, protocolVersion: random.pick([5, 4]) },
    },
    {
      name: 'service-1',
      kind: 'service',
      mayBeKilled: true,
      options: { clean: false, protocolVersion: 5, publisher: 'publisher-1' },
    },
    {
      name: 'service-2',
      kind: 'service',
      mayBeKilled: false,
      options: { clean: false, protocolVersion: 5, publisher: 'publisher-2' },
    },
    {
      name: 'consumer-1',
      kind: 'consumer',
      mayBeKilled: true,
      options: { clean: random.chance(0.5), protocolVersion: 5 },
    },
    {
      name: 'consumer-2',
      kind: 'consumer',
      mayBeKilled: false,
      options: { clean: true, protocolVersion: 5 },
    },
  ]
}
