// One run: three nodes, a subscriber, two publishers, and one node after the other killed.
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Remote } from '../soak/remote.mjs'
import { Evidence } from './verdict.mjs'

const EVERY_MS = 10
const STEADY_MS = 1_500
const READY_LIMIT_MS = 90_000
const FLOW_LIMIT_MS = 20_000
/** NATS delivers an unacknowledged message again after 30 s. */
const DRAIN_LIMIT_MS = 45_000
const QUIET_MS = 1_000

const processOf = kind => fileURLToPath(new URL(`${kind}-process.mjs`, import.meta.url))

export class Conductor {
  kills = []
  remotes = []
  names = []
  phase = 'start'

  /** @param mostMs after this time, no further node is killed */
  constructor({ rounds, mostMs, say }) {
    this.rounds = rounds
    this.mostMs = mostMs
    this.say = say
  }

  async run(cluster) {
    this.cluster = cluster
    const { nodes } = cluster
    this.phase = 'start of the nodes'
    await cluster.start()
    await this.until('every node is ready', () => cluster.isReady())
    const startedMs = Date.now()
    this.subscriber = await this.join('subscriber', 'subscriber')
    this.publishers = [
      await this.join('publisher', 'plain'),
      await this.join('publisher', 'storing', { store: join(this.cluster.folder, 'storing.db') }),
    ]
    for (const publisher of this.publishers) await publisher.call('start')
    await wait(2 * STEADY_MS)
    for (let round = 0; round < this.rounds; round += 1)
      for (const node of nodes) if (Date.now() - startedMs < this.mostMs) await this.killed(node)
    this.endedMs = Date.now()
    this.seconds = (this.endedMs - startedMs) / 1_000
    await this.drained()
  }

  async join(kind, name, options = {}) {
    const { folder, nodes } = this.cluster
    const role = { name, urls: nodes.map(({ url }) => url), journal: this.journalOf(name), everyMs: EVERY_MS }
    this.phase = `start of the process ${name}`
    const onLost = error => this.say(`the process ${name} ended: ${error.message}`)
    const remote = new Remote(
      processOf(kind),
      { ...role, folder, ...options },
      { execArgv: ['--no-warnings'], onLost },
    )
    this.names.push(name)
    this.remotes.push(remote)
    await remote.ready
    return remote
  }

  journalOf(name) {
    return join(this.cluster.folder, `${name}.journal`)
  }

  /** Kills a node, waits until messages are handled again, and then until the node has caught up. */
  async killed(node) {
    const { url, name } = node
    const kill = { atMs: Date.now(), url, name }
    this.kills.push(kill)
    await node.kill()
    const marks = await Promise.all(this.publishers.map(publisher => publisher.call('lastCalled')))
    this.phase = `${name} is down`
    // Without replicas, the load waits for the node.
    const flowed = await reached(() => this.flowsSince(marks), FLOW_LIMIT_MS)
    await wait(STEADY_MS)
    const startMs = Date.now()
    await node.start()
    await this.until(`${name} has caught up`, () => this.cluster.isReady())
    kill.wholeMs = Date.now() - startMs
    if (!flowed) await this.until('messages are handled again', () => this.flowsSince(marks))
    await wait(STEADY_MS)
    this.say(`${name} was killed, and is back`)
  }

  /** Whether a later message of each publisher was acknowledged and handled. */
  async flowsSince(marks) {
    const handled = await this.subscriber.call('lastHandled')
    const acknowledged = await Promise.all(
      this.publishers.map(publisher => publisher.call('lastAcknowledged')),
    )
    return marks.every((mark, index) => acknowledged[index] > mark && handled[index] > mark)
  }

  /** Ends the load, and waits until everything that was promised has arrived, or until a time limit. */
  async drained() {
    this.phase = 'drain'
    const left = await Promise.all(this.publishers.map(publisher => publisher.call('rest')))
    this.left = left.reduce((sum, count) => sum + count, 0)
    const untilMs = Date.now() + DRAIN_LIMIT_MS
    while (this.evidence().missing().length > 0 && Date.now() < untilMs) await wait(QUIET_MS)
    await wait(QUIET_MS)
  }

  evidence() {
    const evidence = new Evidence()
    // A process that did not start has no journal.
    for (const name of this.names.filter(each => existsSync(this.journalOf(each))))
      for (const line of readFileSync(this.journalOf(name), 'utf8').split('\n').slice(0, -1))
        evidence.take(name, line)
    return evidence
  }

  async until(what, condition) {
    this.phase = what
    if (!(await reached(condition, READY_LIMIT_MS)))
      throw new Error(`timed out after ${READY_LIMIT_MS / 1_000} s: ${what}`)
  }

  async logs() {
    return Promise.all(this.remotes.map(remote => remote.call('recentLog').catch(() => [])))
  }

  /** Ends every process of the run, by its id. */
  end() {
    for (const remote of this.remotes) {
      remote.isExpectedToEnd = true
      remote.child.kill('SIGKILL')
    }
    for (const child of this.cluster.children()) child.signal('SIGKILL')
  }
}

/** @returns whether the condition was met in time */
async function reached(condition, limitMs) {
  const untilMs = Date.now() + limitMs
  while (!(await condition())) {
    if (Date.now() > untilMs) return false
    await wait(50)
  }
  return true
}
