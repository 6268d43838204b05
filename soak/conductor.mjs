// A run: storms with faults, calm phases in which everything must progress, and quiet points at which nothing may be left.
import { setTimeout as wait } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { castOf, PROGRESS } from './cast.mjs'
import { FAULT_NAMES, Faults } from './faults.mjs'
import { leaks } from './leaks.mjs'
import { Random } from './random.mjs'
import { Remote } from './remote.mjs'
import { Stage } from './stage.mjs'

/** Time for a calm phase to show progress, and for everything to drain. */
const PATIENCE_MS = 90_000
const POLL_MS = 100
/** The journals of a quiet network have no new line for this time. */
const QUIET_POLLS = 5
/** A leak shows between two quiet points. */
const LEAST_QUIET_POINTS = 2
/** Time for a process to end after it has finished. */
const END_MS = 5_000
const JUDGE_MS = 300_000

const NOT_JUDGED = { laws: [], outcomes: {}, operations: {}, requests: { ends: {}, runs: 0, handled: 0 } }

export class Conductor {
  quietPoints = []
  /** What the processes had to do after a heal. */
  progressChecks = 0
  broken = []
  phase = 'start'

  constructor({ minutes, seed, say }) {
    this.durationMs = minutes * 60_000
    this.say = say
    this.random = new Random(seed, 'conductor')
    this.seed = seed
    this.stage = new Stage(seed)
    this.faults = new Faults(this.stage, this.random)
    this.stormMs = Math.min(20_000, Math.max(5_000, this.durationMs / 8))
  }

  get hasFailed() {
    return this.broken.length + this.stage.failures.length > 0
  }

  /** Time after which the run is stuck. */
  get deadlineMs() {
    return 2 * this.durationMs + 300_000
  }

  /** Never rejects: the journals are checked whatever fails. */
  async run() {
    const late = new AbortController()
    const tooLate = wait(this.deadlineMs, undefined, late).then(() => {
      throw new Error(`the run did not end within ${this.deadlineMs / 1_000} s`)
    })
    await Promise.race([this.cycles(), tooLate]).catch(error =>
      this.stage.fail(`in the phase "${this.phase}": ${error.stack}`),
    )
    late.abort()
    await tooLate.catch(() => {})
    return this.end()
  }

  async cycles() {
    const startMs = performance.now()
    await this.stage.open(castOf(this.random))
    const elapsedMs = () => performance.now() - startMs
    const isOver = () =>
      elapsedMs() + this.stormMs >= this.durationMs &&
      this.quietPoints.length >= LEAST_QUIET_POINTS &&
      this.faults.haveAllHappened
    do {
      await this.cycle()
      const phases = Object.entries(this.phases).map(([name, ms]) => `${name} ${seconds(ms)}`)
      this.say(
        `${seconds(elapsedMs())}: quiet point ${this.quietPoints.length} (${phases.join(', ')}), ${await this.stage.witness.call('count')} messages`,
      )
    } while (!this.hasFailed && !isOver())
  }

  async cycle() {
    const { stage } = this
    this.phases = {}
    await this.everyActor('start')
    await this.during('storm', () => this.storm())
    await this.during('heal', () => stage.heal())
    await this.everyActor('start')
    await this.during('calm', () => this.calm())
    if (!this.hasFailed) await this.during('quiet', () => this.quiet())
  }

  async during(phase, act) {
    const startMs = performance.now()
    this.phase = phase
    await act()
    this.phases[phase] = performance.now() - startMs
  }

  async storm() {
    const untilMs = performance.now() + this.stormMs
    const isLate = () => performance.now() >= untilMs
    while (!isLate() && !this.hasFailed) {
      this.faults.inflictOne(isLate)
      await wait(this.random.between(100, 700))
    }
  }

  /** Nothing starves: every process does each of its kinds of work. */
  async calm() {
    const before = await this.everyActor('report')
    const missing = async () => {
      const now = await this.everyActor('report')
      return this.stage.actors.flatMap(({ name, kind }, index) =>
        PROGRESS[kind]
          .filter(what => (now[index].progress[what] ?? 0) <= (before[index].progress[what] ?? 0))
          .map(what => `${name}: ${what}`),
      )
    }
    this.progressChecks += this.stage.actors.flatMap(({ kind }) => PROGRESS[kind]).length
    const left = await this.until(missing)
    if (left.length > 0)
      this.breaks('no starvation', `no progress ${PATIENCE_MS / 1_000} s after the heal: ${left.join(', ')}`)
  }

  /** Nothing is left: every process has finished what it began. */
  async quiet() {
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

  /** @param instead returns the result of a call that fails, which otherwise rejects */
  everyActor(method, instead) {
    return Promise.all(this.stage.actors.map(actor => actor.call(method).catch(instead)))
  }

  breaks(law, what) {
    this.broken.push([law, what])
  }

  async end() {
    const { actors, witness } = this.stage
    const reports = await this.everyActor('report', () => undefined)
    const logs = this.hasFailed ? await this.everyActor('recentLog', () => []) : []
    const witnessReport = await witness?.call('report').catch(() => undefined)
    await Promise.all(actors.map(actor => this.finish(actor)))
    const verdict = await this.verdict()
    const cpuMs = [...reports, witnessReport].reduce((sum, report) => sum + (report?.cpuMs ?? 0), 0)
    return { verdict, reports, logs, cpuMs }
  }

  async finish({ remote, name }) {
    if (!remote?.isAlive) return
    remote.isExpectedToEnd = true
    try {
      await remote.call('finish')
    } catch (error) {
      if (remote.isAlive) this.stage.fail(`${name} did not finish: ${error.message}`)
    }
    await Promise.race([remote.closed, wait(END_MS)])
    if (remote.isAlive) await remote.kill()
  }

  async verdict() {
    const { actors, folder } = this.stage
    const killed = Object.fromEntries(actors.map(each => [each.name, each.killed]))
    const file = fileURLToPath(new URL('verifier-process.mjs', import.meta.url))
    const verifier = new Remote(file, { folder, killed }, { callMs: JUDGE_MS })
    try {
      return await verifier.call('judge')
    } catch (error) {
      this.stage.fail(`the journals could not be judged: ${error.message}`)
      return NOT_JUDGED
    } finally {
      await verifier.kill()
    }
  }

  /** The laws that the conductor checks itself. */
  ownLaws() {
    const law = (name, text, checks, broken = []) => {
      const all = [...this.broken.filter(([which]) => which === name).map(([, what]) => what), ...broken]
      return { name, text, checks, broken: all.length, examples: all.slice(0, 5) }
    }
    const { stage, faults, quietPoints } = this
    const held = [...leaks(stage.actors, quietPoints)]
    const lives = stage.actors.reduce((sum, { life }) => sum + life, 0)
    return [
      law('drains', 'everything drains after each storm', quietPoints.length * stage.actors.length),
      law('no starvation', 'after each storm every process does all of its work again', this.progressChecks),
      law(
        'no leak',
        'heap, handles, timers, listeners, descriptors and subscriptions do not grow, and no slot, byte or row is left',
        held.length,
        held.filter(found => found !== undefined),
      ),
      law(
        'faults',
        'every kind of fault happened',
        FAULT_NAMES.length,
        // A run that fails ends early.
        this.hasFailed
          ? []
          : FAULT_NAMES.filter(name => faults.counts[name] === 0).map(name => `"${name}" did not happen`),
      ),
      law('no crash', 'no process ended by itself, and no fault failed', lives, stage.failures),
    ]
  }
}

function seconds(ms) {
  return `${Math.round(ms / 1_000)} s`
}
