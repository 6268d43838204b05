import type { DropReason } from './publish-outcome.js'

/** How many publishes ended in each way. */
export interface CountedOutcomes {
  readonly attempted: number
  readonly accepted: number
  readonly sent: number
  readonly acknowledged: number
  readonly refused: number
  readonly lost: number
  readonly dropped: Readonly<Record<DropReason, number>>
}

/** Counts each publish when it begins and when it ends. Its numbers are counted where that happens, without a call. */
export class OutcomeCount {
  /** Publishes that began, however they end. */
  begun = 0
  readonly ended = { sent: 0, acknowledged: 0, refused: 0, lost: 0 }
  private rejected = 0
  readonly dropped: Record<DropReason, number> = {
    offline: 0,
    backlog: 0,
    'in-flight-full': 0,
    'queue-full': 0,
    superseded: 0,
    expired: 0,
    aborted: 0,
    closed: 0,
  }

  get outcomes(): CountedOutcomes {
    return {
      attempted: this.begun,
      accepted: this.begun - this.rejected,
      ...this.ended,
      dropped: { ...this.dropped },
    }
  }

  droppedAtOnce(reason: DropReason): void {
    this.begun += 1
    this.rejected += 1
    this.dropped[reason] += 1
  }
}
