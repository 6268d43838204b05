// The processes of a run and the links between them.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { FaultLink } from 'nestjs-mqtt/testing'
import { Journal } from './journal.mjs'
import { LossyPings } from './lossy-pings.mjs'
import { Remote } from './remote.mjs'
import { isShared } from './topics.mjs'

const MOST_RESTART_MS = 120_000
/** Time for all processes to subscribe, before the first fault. */
const SUBSCRIBE_MS = 120_000
/** The witness may receive a message this much later than a service would. */
const SLACK_MS = 1_000

/** A message of a publisher: its topic and its id. */
const MESSAGE = /(soak\/pub\/[a-z]+\/\d\/[a-z]+-\d\/\d)[\s\S]*?"id":"([^"]+)"/

const fileOf = kind => fileURLToPath(new URL(`${kind}-process.mjs`, import.meta.url))

/** A process of the package under test, over all its lives, with its link to the broker. */
class ActorProcess {
  life = 0
  kills = 0
  /** Lives that `kill -9` ended. */
  killed = []
  /** Where one fault at a time may happen. */
  places = { forLink: { actor: this, fault: undefined }, forProcess: { actor: this, fault: undefined } }

  constructor(cast, stage) {
    Object.assign(this, cast)
    this.stage = stage
    this.journal = join(stage.folder, `${cast.name}.journal`)
  }

  async start() {
    if (this.remote?.isAlive) return
    this.life += 1
    const { name, kind, life, journal, options, stage } = this
    const store = join(stage.folder, `${name}.db`)
    const log = join(stage.folder, `${name}.log`)
    const role = { name, life, journal, log, store, url: this.link.url, seed: stage.seed, ...options }
    this.remote = new Remote(fileOf(kind), role, {
      execArgv: ['--expose-gc', '--no-warnings'],
      onLost: error => stage.fail(`the process ${name} ended: ${error.message}`),
    })
    await this.remote.ready
  }

  call(method, ...args) {
    return this.remote.call(method, ...args)
  }

  async kill() {
    this.kills += 1
    this.killed.push(this.life)
    await this.remote.kill()
  }
}

export class Stage {
  actors = []
  failures = []

  constructor(seed) {
    this.seed = seed
    this.folder = mkdtempSync(join(tmpdir(), 'nestjs-mqtt-soak-'))
    this.journal = new Journal(join(this.folder, 'stage.journal'))
  }

  /** Something ended the run that no law describes. */
  fail(text) {
    this.failures.push(text)
  }

  async open(cast) {
    this.broker = new Remote(fileOf('broker'), { folder: this.folder })
    Object.assign(this.broker, { name: 'the broker', place: { fault: undefined } })
    await this.broker.ready
    const { port } = await this.broker.call('place')
    this.witness = new Remote(fileOf('witness'), { port, journal: join(this.folder, 'witness.journal') })
    await this.witness.ready
    for (const each of cast) {
      const actor = new ActorProcess(each, this)
      actor.pings = await LossyPings.start(
        port,
        each.kind === 'service'
          ? (connection, packet) => this.delivered(each.name, connection, packet)
          : undefined,
      )
      actor.link = await FaultLink.start({ port: actor.pings.port })
      this.actors.push(actor)
    }
    await Promise.all(this.actors.map(actor => actor.start()))
    await this.allSubscribed()
  }

  /** The broker keeps messages for a session from its first subscription on. */
  async allSubscribed() {
    const untilMs = performance.now() + SUBSCRIBE_MS
    const since = () => Promise.all(this.actors.map(actor => actor.call('subscribedSinceMs')))
    while ((await since()).includes(0)) {
      if (performance.now() > untilMs) throw new Error('not every process has subscribed')
      await wait(50)
    }
  }

  /** All links are free, the broker and every process run. */
  async heal() {
    for (const { link, pings } of this.actors) {
      link.refuse(false)
      link.heal()
      pings.isLosing = false
    }
    const places = this.actors.flatMap(actor => [actor.places.forLink, actor.places.forProcess])
    await Promise.all([this.broker.place, ...places].map(({ fault }) => fault))
    await this.broker.call('up')
    await Promise.all(this.actors.map(actor => actor.start()))
    for (const { link } of this.actors) link.heal()
  }

  /**
   * Mosquitto 2.0 forgets its Shared Subscriptions in a restart, so a message reaches no service until one has subscribed again.
   * Writes this period into the journal.
   */
  async sharesAgain(downMs) {
    const upMs = Date.now()
    let isOver = false
    // A service that starts responds late, so each one is asked by itself.
    const hasSubscribed = async service => {
      while (!isOver && (await service.call('subscribedSinceMs').catch(() => 0)) <= upMs) await wait(50)
    }
    const services = this.actors.filter(({ kind }) => kind === 'service')
    const late = new AbortController()
    const tooLate = wait(MOST_RESTART_MS, true, late).catch(() => false)
    const isTooLate = await Promise.race([...services.map(hasSubscribed), tooLate])
    isOver = true
    late.abort()
    if (isTooLate) return this.fail('no service subscribed again after a restart of the broker')
    await wait(SLACK_MS)
    this.journal.note('R', downMs, Date.now())
  }

  /** Writes what the broker delivers to a service, on topics whose messages are in order. */
  delivered(name, connection, packet) {
    const [, topic, id] = MESSAGE.exec(packet.latin1Slice()) ?? []
    if (id !== undefined && !isShared(topic)) this.journal.note('T', name, connection, id)
  }

  /** Number of PINGRESP packets that did not arrive. */
  get lostPings() {
    return this.actors.reduce((sum, { pings }) => sum + pings.lost, 0)
  }

  get remotes() {
    const remotes = [this.broker, this.witness, ...this.actors.map(({ remote }) => remote)]
    return remotes.filter(remote => remote !== undefined)
  }

  /** Ends everything that is left. @returns the process ids that do not end */
  async close(isKept) {
    const { remotes } = this
    await Promise.all(remotes.filter(({ isAlive }) => isAlive).map(remote => remote.end()))
    for (const { link, pings } of this.actors) {
      await link?.stop()
      pings?.stop()
    }
    if (!isKept) rmSync(this.folder, { recursive: true, force: true })
    return remotes.filter(({ child }) => isRunning(child.pid)).map(({ child }) => child.pid)
  }
}

function isRunning(pid) {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}
