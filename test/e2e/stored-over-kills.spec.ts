import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { connectAsync } from 'mqtt'
import { expect, it } from 'vitest'
import { FaultLink } from '../../src/testing/index.js'
import { eventually } from '../support/eventually.js'
import { Mosquitto } from '../support/mosquitto.js'
import { SeededRandom } from '../support/seeded-random.js'

/** A longer run: STORE_KILLS=300 */
const KILLS = Number(process.env['STORE_KILLS'] ?? 8)
/** Another run: STORE_SEED=… */
const SEED = Number(process.env['STORE_SEED'] ?? 20_261_127)
const TOPICS = 8
/** Numbers of one process start here, so that they ascend over all processes. */
const PER_PROCESS = 1_000_000
/** Outcomes of one process before it is killed, at most. */
const MOST_OUTCOMES = 600
const APP = fileURLToPath(new URL('apps/storing-publisher.mjs', import.meta.url))

/** What arrived, by topic, in order, without repeats. */
class Arrivals {
  readonly firsts = new Map<string, Set<number>>()
  repeats = 0

  take(topic: string, number: number): void {
    const numbers = this.firsts.get(topic) ?? new Set()
    this.firsts.set(topic, numbers)
    if (numbers.has(number)) this.repeats += 1
    else numbers.add(number)
  }

  has(number: number): boolean {
    return this.firsts.get(`kills/${number % TOPICS}`)?.has(number) === true
  }
}

/** A process that publishes, and what it said. */
class Publisher {
  readonly outcomes = new Map<number, string>()
  private readonly process: ChildProcess
  private readonly said = new Set<string>()
  private errors = ''

  constructor(options: object) {
    this.process = spawn(process.execPath, [APP, JSON.stringify(options)], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    this.process.stderr?.on('data', (chunk: Buffer) => {
      this.errors += chunk.toString()
    })
    if (this.process.stdout === null) throw new Error('the process has no output')
    createInterface(this.process.stdout).on('line', line => {
      const [number = '', status = ''] = line.split(' ')
      if (status === '') this.said.add(line)
      else this.outcomes.set(Number(number), status)
    })
  }

  async until(condition: () => boolean): Promise<void> {
    await eventually(() => {
      if (this.process.exitCode !== null && !condition()) throw new Error(`the process ended: ${this.errors}`)
      return condition()
    })
  }

  hasSaid(line: string): boolean {
    return this.said.has(line)
  }

  async kill(): Promise<void> {
    const closed = once(this.process, 'close')
    this.process.kill('SIGKILL')
    await closed
  }

  async end(): Promise<void> {
    if (this.process.exitCode === null) await once(this.process, 'close')
  }
}

it(
  `${KILLS} kills of a publisher, with cuts of its link and restarts of the broker: what is stored or acknowledged arrives, in order`,
  async () => {
    const random = new SeededRandom(SEED)
    const folder = mkdtempSync(join(tmpdir(), 'nestjs-mqtt-kills-'))
    const file = join(folder, 'messages.db')
    const broker = await Mosquitto.start({
      persistent: true,
      config: ['max_queued_messages 0', 'max_inflight_messages 0'],
    })
    const link = await FaultLink.start({ port: broker.port })
    const arrivals = new Arrivals()
    const subscriber = await connectAsync(broker.url, {
      clientId: 'independent',
      clean: false,
      reconnectPeriod: 5,
    })
    subscriber.on('message', (topic, payload) => arrivals.take(topic, Number(payload)))
    await subscriber.subscribeAsync('kills/+', { qos: 2 })
    const promised: number[] = []
    const statuses = new Map<string, number>()
    for (let kill = 0; kill < KILLS; kill += 1) {
      const options = { url: link.url, file, first: kill * PER_PROCESS, topics: TOPICS }
      const clean = random.chance(0.5)
      const mostOpen = random.pick([1, 4, 100])
      const storeAfterMs = random.pick([0, 5, 50])
      const publisher = new Publisher({ ...options, clean, storeAfterMs, mostOpen })
      const outcomes = random.below(MOST_OUTCOMES)
      const cutAt = random.chance(0.5) ? random.below(outcomes + 1) : Infinity
      const isDown = random.chance(0.25)
      if (isDown) await broker.down('SIGTERM')
      await publisher.until(
        () => publisher.hasSaid('started') && publisher.outcomes.size >= Math.min(cutAt, outcomes),
      )
      if (cutAt <= outcomes) await link.cut()
      await publisher.until(() => publisher.outcomes.size >= outcomes)
      const isUpFirst = random.chance(0.5)
      if (isDown && isUpFirst) await broker.up()
      await publisher.kill()
      if (isDown && !isUpFirst) await broker.up()
      for (const [number, status] of publisher.outcomes) {
        statuses.set(status, (statuses.get(status) ?? 0) + 1)
        if (status === 'stored' || status === 'acknowledged') promised.push(number)
      }
    }
    const last = new Publisher({ url: link.url, file, topics: TOPICS, clean: true, storeAfterMs: 200 })
    await last.until(() => last.hasSaid('drained'))
    await last.end()
    await eventually(() => promised.every(number => arrivals.has(number)))

    for (const [topic, numbers] of arrivals.firsts) {
      const inOrder = [...numbers].toSorted((a, b) => a - b)
      expect([...numbers], `seed ${SEED}: the first copies on ${topic}`).toEqual(inOrder)
    }
    expect([...statuses.keys()].toSorted(), `seed ${SEED}`).toEqual(['acknowledged', 'stored'])
    const distinct = [...arrivals.firsts.values()].reduce((sum, numbers) => sum + numbers.size, 0)
    if (KILLS >= 100)
      console.log(
        `${KILLS} kills: ${promised.length} promised (${JSON.stringify(Object.fromEntries(statuses))}), ${distinct} arrived, ${arrivals.repeats} repeats`,
      )
    await subscriber.endAsync(true)
    await link.stop()
    await broker.stop()
    rmSync(folder, { recursive: true, force: true })
  },
  30_000 + 5_000 * KILLS,
)
