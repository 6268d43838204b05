import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Injectable } from '@nestjs/common'
import { AlarmHistory } from '../service/alarm-history.js'
import { AgeHistogram } from './age-histogram.js'
import { DemoFleet } from './fleet.js'
import type { Garbage } from './garbage-process.js'
import { Meter, type Sample } from './meter.js'
import { Stage } from './stage.js'

/** A full bad day. Shorter ones have the same events, closer together. */
export const BAD_DAY_SECONDS = 120
const THROTTLED_BYTES_PER_SECOND = 5_000
/** When the ages are noted after the links became slow. */
const THROTTLED_AT_SECONDS = [5, 10, 15, 20, 25] as const
/** After garbage, the broker may have a backlog. */
const ARRIVE_WITHIN_MS = 60_000
const LOOK_EVERY_MS = 100

export interface Flooded {
  /** What the service keeps in memory after a third of the garbage, and near its end. */
  readonly bytesBefore: number
  readonly bytesAfter: number
  readonly garbage: Garbage
  /** Alarms of trucks that were recorded meanwhile. */
  readonly alarms: number
}

/** Simulates every fault, one after another, and measures what happens to the messages. */
@Injectable()
export class BadDay {
  readonly alarmAges = new AgeHistogram()
  /** The age of the newest reading of each truck while the links were throttled. */
  readonly throttled: { readonly seconds: number; readonly agesMs: Sample['agesMs'] }[] = []
  private secondMs = 1_000

  constructor(
    private readonly stage: Stage,
    private readonly fleet: DemoFleet,
    private readonly meter: Meter,
    private readonly history: AlarmHistory,
  ) {
    history.added.subscribe(({ atMs }) => this.alarmAges.add(Date.now() - atMs))
  }

  /** @param seconds how long it lasts */
  async play(seconds: number): Promise<Flooded> {
    this.secondMs = (seconds / BAD_DAY_SECONDS) * 1_000
    await this.whenAllArrive()
    await this.pass(10)
    this.stage.setLink({ mode: 'throttled', bytesPerSecond: THROTTLED_BYTES_PER_SECOND })
    for (const seconds of THROTTLED_AT_SECONDS) {
      await this.pass(THROTTLED_AT_SECONDS[0])
      this.throttled.push({ seconds, agesMs: this.meter.samples.at(-1)?.agesMs ?? [] })
    }
    this.stage.setLink({ mode: 'free' })
    await this.pass(6)
    this.stage.setLink({ mode: 'closed' })
    await this.pass(10)
    this.stage.setLink({ mode: 'free' })
    await this.pass(6)
    await this.stage.restartBroker()
    await this.pass(8)
    this.stage.setLink({ mode: 'stalled' })
    await this.pass(10)
    this.stage.setLink({ mode: 'free' })
    await this.pass(5)
    await this.stage.killTruck()
    await this.pass(2)
    const flooded = await this.flood(30)
    await this.pass(5)
    await this.until(() => this.fleet.outstanding.size === 0)
    return flooded
  }

  private async flood(seconds: number): Promise<Flooded> {
    const { total } = this.history
    const flood = this.stage.flood((seconds * this.secondMs) / 1_000)
    await this.pass(seconds / 3)
    const bytesBefore = bytesInUse()
    await this.pass(seconds / 2)
    const bytesAfter = bytesInUse()
    return { bytesBefore, bytesAfter, garbage: await flood, alarms: this.history.total - total }
  }

  private async whenAllArrive(): Promise<void> {
    await this.until(() => [...this.meter.ages.values()].every(({ count }) => count > 0))
  }

  private async pass(seconds: number): Promise<void> {
    await sleep(seconds * this.secondMs)
  }

  private async until(condition: () => boolean): Promise<void> {
    const deadline = Date.now() + ARRIVE_WITHIN_MS
    while (!condition() && Date.now() < deadline) await sleep(LOOK_EVERY_MS)
  }
}

/** Memory in use after a garbage collection. */
function bytesInUse(): number {
  setFlagsFromString('--expose-gc')
  runInNewContext('gc')()
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}
