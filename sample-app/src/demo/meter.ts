import { Injectable, type OnApplicationBootstrap, type OnModuleDestroy } from '@nestjs/common'
import { Subject } from 'rxjs'
import { FleetService } from '../service/fleet.service.js'
import { AgeHistogram } from './age-histogram.js'
import { COMPARED, DemoFleet } from './fleet.js'

const SAMPLE_EVERY_MS = 250
/** Two minutes. */
const SAMPLES_KEPT = 480
/** Drops per second are counted over one second. */
const RATE_OVER_SAMPLES = 4

/** One point of each curve, in the order of `COMPARED`. */
export interface Sample {
  readonly atMs: number
  /** How old the newest reading of each truck is. Null: there is none yet. */
  readonly agesMs: readonly (number | null)[]
  readonly dropsPerSecond: readonly number[]
}

const histograms = () => new Map(COMPARED.map(({ truckId }) => [truckId, new AgeHistogram()]))

/** Measures the trucks that are compared. */
@Injectable()
export class Meter implements OnApplicationBootstrap, OnModuleDestroy {
  readonly taken = new Subject<Sample>()
  /** The curves of the last two minutes, so that a page shows them as soon as it is opened. */
  readonly samples: Sample[] = []
  /** Ages of the readings of each truck when they arrived. */
  readonly ages = histograms()
  /** Those that met a slow link on their way, and no outage. */
  readonly throttledAges = histograms()
  /** Those whose link was free all the way. */
  readonly freeAges = histograms()
  /** Those that waited for a broker and a service that were busy with garbage. */
  readonly floodedAges = histograms()
  private readonly dropped: number[][] = []
  private timer: NodeJS.Timeout | undefined

  constructor(
    private readonly service: FleetService,
    private readonly fleet: DemoFleet,
  ) {}

  onApplicationBootstrap(): void {
    this.service.arrivals.subscribe(({ truckId, ageMs }) => {
      this.ages.get(truckId)?.add(ageMs)
      const nowMs = Date.now()
      const met = this.fleet.phases.between(nowMs - ageMs, nowMs)
      if (met.has('stalled') || met.has('closed')) return
      const others = met.has('flooded') ? this.floodedAges : this.freeAges
      const ages = met.has('throttled') ? this.throttledAges : others
      ages.get(truckId)?.add(ageMs)
    })
    this.timer = setInterval(() => this.take(), SAMPLE_EVERY_MS)
  }

  onModuleDestroy(): void {
    clearInterval(this.timer)
  }

  private take(): void {
    const sample: Sample = {
      atMs: Date.now(),
      agesMs: COMPARED.map(({ truckId }) => this.service.find(truckId)?.ageMs ?? null),
      dropsPerSecond: this.dropRates(),
    }
    this.samples.push(sample)
    if (this.samples.length > SAMPLES_KEPT) this.samples.shift()
    this.taken.next(sample)
  }

  private dropRates(): number[] {
    const now = COMPARED.map(({ truckId }) => {
      const dropped = this.fleet.processOf(truckId)?.reports.get(truckId)?.readings.dropped ?? {}
      return Object.values(dropped).reduce((sum, count) => sum + count, 0)
    })
    this.dropped.push(now)
    if (this.dropped.length > RATE_OVER_SAMPLES + 1) this.dropped.shift()
    const [before] = this.dropped
    return now.map((count, index) => Math.max(0, count - (before?.[index] ?? 0)))
  }
}
