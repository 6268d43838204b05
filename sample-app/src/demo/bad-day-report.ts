import { Injectable } from '@nestjs/common'
import { AlarmHistory } from '../service/alarm-history.js'
import { addsUp, type Counts, sum } from '../truck/tally.js'
import type { AgeHistogram } from './age-histogram.js'
import { BadDay, type Garbage } from './bad-day.js'
import { COMPARED, DemoFleet } from './fleet.js'
import { Meter } from './meter.js'
import { table } from './table.js'

/** 1.2 times `maxDelayMs`, and two readings of 1.5 KB that are on a link of 5 KB/s. */
const FRESH_MS = 1_800
/** Readings that are on the wire when a link stalls arrive after the stall. */
const LATE_AT_MOST = 20
/** `inbound.maxQueuedBytes`, 64 MB, and the dead letters of all these messages, which are larger because of base64. */
const FLAT_BYTES = 67_108_864 * 2.5
const MB = 1_000_000

const HEAD = [
  '',
  'published',
  'delivered',
  'dropped',
  'lost',
  'stored',
  'pending',
  'dead',
  'p50 age',
  'p99 age',
]

export interface Report {
  readonly text: string
  /** The rules that were broken. */
  readonly broken: readonly string[]
}

/** What happened to every message of a bad day. */
@Injectable()
export class BadDayReport {
  constructor(
    private readonly day: BadDay,
    private readonly fleet: DemoFleet,
    private readonly meter: Meter,
    private readonly history: AlarmHistory,
  ) {}

  write(garbage: Garbage): Report {
    const rows = COMPARED.map(({ truckId, kind }) => [
      ...row(`readings, ${kind}`, this.readingsOf(truckId), this.agesOf(truckId)),
      `${this.throttledP99(truckId)} ms`,
      String(this.agesOf(truckId).olderThan(FRESH_MS)),
    ])
    const alarms = sum(this.fleet.reports.map(report => report.alarms))
    rows.push([...row('alarms', alarms, this.day.alarmAges, String(this.history.deadLettered)), '–', '–'])
    const broken = this.laws(garbage)
      .filter(([, holds]) => !holds)
      .map(([law]) => law)
    const lines = this.laws(garbage).map(([law, holds]) => `  ${holds ? '✓' : '✗ BROKEN:'} ${law}`)
    return { text: `\n${table([HEAD, ...rows])}\n\n${lines.join('\n')}\n`, broken }
  }

  private laws(garbage: Garbage): [law: string, holds: boolean][] {
    const { outstanding, promised, reports } = this.fleet
    const alarms = Object.values(promised).reduce((total, count) => total + count, 0)
    const growth = garbage.bytesAfter - garbage.bytesBefore
    return [
      [
        'every publish of every truck has one outcome, or is pending',
        reports.every(({ readings, alarms }) => addsUp(readings) && addsUp(alarms)),
      ],
      [`of ${alarms} promised alarms none is lost (${outstanding.size} are)`, outstanding.size === 0],
      ...COMPARED.filter(({ kind }) => kind !== 'mqtt').flatMap(truck => this.freshness(truck)),
      [
        `${garbage.alarms} alarms were recorded between ${garbage.sent} unusable messages`,
        garbage.alarms > 0 && garbage.sent > 0,
      ],
      [
        `meanwhile the service kept at most what may wait, 64 MB and its dead letters (${(growth / MB).toFixed(1)} MB more)`,
        growth <= FLAT_BYTES,
      ],
    ]
  }

  private freshness({ truckId, kind }: (typeof COMPARED)[number]): [law: string, holds: boolean][] {
    const ages = this.agesOf(truckId)
    return [
      [
        `while throttled, 99 % of the readings with ${kind} are at most ${FRESH_MS} ms old`,
        this.throttledP99(truckId) <= FRESH_MS,
      ],
      [
        `in the whole day, at most ${LATE_AT_MOST} readings with ${kind} are older: those on a link when it stalled`,
        ages.olderThan(FRESH_MS) <= LATE_AT_MOST,
      ],
    ]
  }

  private throttledP99(truckId: string): number {
    return this.meter.throttledAges.get(truckId)?.percentile(0.99) ?? 0
  }

  private readingsOf(truckId: string): Counts {
    return sum(this.fleet.reports.filter(report => report.truckId === truckId).map(report => report.readings))
  }

  private agesOf(truckId: string): AgeHistogram {
    return this.meter.ages.get(truckId) ?? this.day.alarmAges
  }
}

function row(name: string, counts: Counts, ages: AgeHistogram, dead = '–'): string[] {
  const reasons = Object.entries(counts.dropped).map(([reason, count]) => `${reason} ${count}`)
  return [
    name,
    String(counts.published),
    String(ages.count),
    reasons.join(', ') || '0',
    String(counts.lost),
    String(counts.stored),
    String(counts.pending),
    dead,
    `${ages.percentile(0.5)} ms`,
    `${ages.percentile(0.99)} ms`,
  ]
}
