import type { Publication } from '../../core/outbound/outbound-message.js'
import { type DropReason, OutcomeCount, type PublishOutcome } from '../../core/outbound/publish-outcome.js'
import type { Hook, Notice } from '../events.js'

/** Drops are over after this time without a drop. */
const CALM_MS = 1_000

/** Counts the outcomes of publishes, and reports those that fail. */
export class Outcomes extends OutcomeCount {
  /** Drops were reported, but not their end. */
  isDropping = false
  private lastDropMs = 0
  /** The last publish that the broker refused. */
  refusal: { readonly atMs: number; readonly reasonCode: number } | undefined

  constructor(private readonly notice: Hook<Notice>) {
    super()
  }

  settle(publication: Publication, outcome: PublishOutcome): void {
    publication.isSettled = true
    if (outcome.status === 'dropped') {
      this.dropped[outcome.reason] += 1
      this.noteDrop(outcome.reason)
    } else {
      this.ended[outcome.status] += 1
      if (outcome.status === 'refused') {
        const { reasonCode, reasonString } = outcome
        this.refusal = { atMs: performance.now(), reasonCode }
        const { topic } = publication.message
        this.notice.tell({ type: 'publish-refused', topic, reasonCode, reasonString })
      }
    }
    publication.stopWatch?.()
    publication.resolve(outcome)
  }

  /** A publish is dropped before it waits. */
  dropAtOnce(reason: DropReason): { readonly status: 'dropped'; readonly reason: DropReason } {
    this.droppedAtOnce(reason)
    this.noteDrop(reason)
    return { status: 'dropped', reason }
  }

  /** Nothing waits. Reports the end of drops if there was none for a while. */
  caughtUp(): void {
    if (performance.now() - this.lastDropMs < CALM_MS) return
    this.isDropping = false
    this.notice.tell({ type: 'drops-over' })
  }

  private noteDrop(reason: DropReason): void {
    this.isDropping = true
    this.lastDropMs = performance.now()
    this.notice.tell({ type: 'publish-dropped', reason })
  }
}
