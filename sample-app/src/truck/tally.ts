/** What became of the messages of one kind. A plain object, so that it can be sent to another process. */
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
  readonly counts: Counts = {
    published: 0,
    pending: 0,
    sent: 0,
    acknowledged: 0,
    stored: 0,
    refused: 0,
    lost: 0,
    dropped: {},
  }

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
