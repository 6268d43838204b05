/** What happened to the messages of one kind. A plain object, so that it can be sent to another process. */
export interface Counts {
  published: number
  /** Messages whose outcome is not known yet. */
  pending: number
  sent: number
  acknowledged: number
  stored: number
  refused: number
  lost: number
  dropped: Record<string, number>
}

export type Settled =
  | { readonly status: 'dropped'; readonly reason: string }
  | { readonly status: Exclude<keyof Counts, 'published' | 'pending' | 'dropped'> }

/** Counts every publish twice: when it is called, and when its outcome is known. */
export class Tally {
  readonly counts = nothing()

  async count<T extends Settled>(publish: Promise<T>): Promise<T> {
    this.counts.published += 1
    this.counts.pending += 1
    const outcome = await publish
    this.counts.pending -= 1
    if (outcome.status !== 'dropped') this.counts[outcome.status] += 1
    else this.counts.dropped[outcome.reason] = (this.counts.dropped[outcome.reason] ?? 0) + 1
    return outcome
  }
}

/** Whether every publish has one outcome, or is pending. */
export function addsUp(counts: Counts): boolean {
  const { published, pending, sent, acknowledged, stored, refused, lost } = counts
  return published === pending + sent + acknowledged + stored + refused + lost + droppedOf(counts)
}

function droppedOf({ dropped }: Counts): number {
  return Object.values(dropped).reduce((total, count) => total + count, 0)
}

export function sum(all: readonly Counts[]): Counts {
  const total = nothing()
  for (const { dropped, ...counts } of all) {
    for (const key of ['published', 'pending', 'sent', 'acknowledged', 'stored', 'refused', 'lost'] as const)
      total[key] += counts[key]
    for (const [reason, count] of Object.entries(dropped))
      total.dropped[reason] = (total.dropped[reason] ?? 0) + count
  }
  return total
}

function nothing(): Counts {
  return {
    published: 0,
    pending: 0,
    sent: 0,
    acknowledged: 0,
    stored: 0,
    refused: 0,
    lost: 0,
    dropped: {},
  }
}
