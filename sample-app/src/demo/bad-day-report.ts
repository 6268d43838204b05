import { Injectable } from '@nestjs/common'
import { AlarmHistory } from '../service/alarm-history.js'
import type { Kind } from '../truck/messages.js'
import { addsUp, type Counts, sum } from '../truck/tally.js'
import type { AgeHistogram } from './age-histogram.js'
import { BadDay, type Flooded } from './bad-day.js'
import { COMPARED, DemoFleet } from './fleet.js'
import { perSecond } from './flood.js'
import { Meter } from './meter.js'
import { table } from './table.js'

/** 1.2 times `maxDelayMs`, and two readings of 1.5 KB that are on a link of 5 KB/s. */
const FRESH_MS = 1_800
/** `inbound.maxQueuedBytes`: what may wait in memory, dead letters included. */
const FLAT_BYTES = 67_108_864
const MB = 1_000_000
const PLAIN = COMPARED.findIndex(({ kind }) => kind === 'mqtt')

const OUTCOMES = [
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

  write(flooded: Flooded): Report {
    const rows = COMPARED.map(({ truckId, kind }) =>
      row(`readings, ${kind}`, this.readingsOf(truckId), this.meter.ages.get(truckId)),
    )
    const alarms = sum(this.fleet.reports.map(report => report.alarms))
    rows.push(row('alarms', alarms, this.day.alarmAges, String(this.history.deadLettered)))
    const laws = this.laws(flooded)
    const broken = laws.filter(([, holds]) => !holds).map(([law]) => law)
    const lines = laws.map(([law, holds]) => `  ${holds ? '✓' : '✗ BROKEN:'} ${law}`)
    const tables = `${table([['', ...OUTCOMES], ...rows])}\n\n${table(this.throttled())}`
    return { text: `\n${tables}\n\n${lines.join('\n')}\n`, broken }
  }

  /** How old the newest reading was while the links were throttled. */
  private throttled(): string[][] {
    const times = this.day.throttled.map(({ seconds }) => `after ${seconds} s`)
    const rows = COMPARED.map(({ truckId, kind }, index) => [
      `age, ${kind}`,
      ...this.day.throttled.map(({ agesMs }) => `${((agesMs[index] ?? 0) / 1_000).toFixed(1)} s`),
      milliseconds(this.meter.throttledAges.get(truckId), 0.99),
    ])
    return [['links throttled', ...times, 'p99 age'], ...rows]
  }

  private laws(flooded: Flooded): [law: string, holds: boolean][] {
    const { outstanding, promised, reports } = this.fleet
    const alarms = Object.values(promised).reduce((total, count) => total + count, 0)
    const growth = flooded.bytesAfter - flooded.bytesBefore
    return [
      [
        'every publish of every truck has one outcome, or is pending',
        reports.every(({ readings, alarms }) => addsUp(readings) && addsUp(alarms)),
      ],
      [`of ${alarms} promised alarms none is lost (${outstanding.size} are)`, outstanding.size === 0],
      ...COMPARED.flatMap(({ truckId, kind }) => (kind === 'mqtt' ? [] : this.freshness(truckId, kind))),
      ['while throttled, the age of the readings with mqtt grows all the time', this.grows(PLAIN)],
      [
        `${flooded.alarms} alarms were recorded between ${flooded.garbage.sent} unusable messages, ${perSecond(flooded.garbage)} a second`,
        flooded.alarms > 0 && flooded.garbage.sent > 0,
      ],
      [
        `meanwhile the service kept no more than may wait, 64 MiB (${(growth / MB).toFixed(1)} MB more than before)`,
        growth <= FLAT_BYTES,
      ],
    ]
  }

  /** A stalled or cut link keeps a reading from arriving, whatever the client does, so such a reading is not checked. */
  private freshness(truckId: string, kind: Kind): [law: string, holds: boolean][] {
    const { throttledAges, freeAges, floodedAges } = this.meter
    return [
      ['while throttled', throttledAges.get(truckId)] as const,
      ['on a free link', freeAges.get(truckId)] as const,
      ['between garbage', floodedAges.get(truckId)] as const,
    ].map(([when, ages]) => [
      `${when}, 99 % of the readings with ${kind} are at most ${FRESH_MS} ms old (${milliseconds(ages, 0.99)})`,
      ages !== undefined && ages.count > 0 && ages.percentile(0.99) <= FRESH_MS,
    ])
  }

  private grows(index: number): boolean {
    const ages = this.day.throttled.map(({ agesMs }) => agesMs[index] ?? 0)
    return ages.every((age, at) => at === 0 || age > (ages[at - 1] ?? 0))
  }

  private readingsOf(truckId: string): Counts {
    return sum(this.fleet.reports.filter(report => report.truckId === truckId).map(report => report.readings))
  }
}

function row(name: string, counts: Counts, ages: AgeHistogram | undefined, dead = '–'): string[] {
  const reasons = Object.entries(counts.dropped).map(([reason, count]) => `${reason} ${count}`)
  return [
    name,
    String(counts.published),
    String(ages?.count ?? 0),
    reasons.join(', ') || '0',
    String(counts.lost),
    String(counts.stored),
    String(counts.pending),
    dead,
    milliseconds(ages, 0.5),
    milliseconds(ages, 0.99),
  ]
}

function milliseconds(ages: AgeHistogram | undefined, share: number): string {
  return `${ages?.percentile(share) ?? 0} ms`
}
