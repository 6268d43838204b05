import type { Publication, PublishTerms, Waiting } from '../../core/outbound/outbound-message.js'
import type { OutboundQueue } from '../../core/outbound/outbound-queue.js'
import type { DropReason } from '../../core/outbound/publish-outcome.js'
import { waitingOf } from '../../core/outbound/waiting.js'
import { POLICIES } from '../../core/outbound/when-blocked.js'
import type { OutboundOptions } from '../../options/options.js'
import type { PacedLink } from './paced-link.js'
import { SweepTimer } from './sweep-timer.js'

export interface WaitingRoomObserver {
  /** A publish that waited is dropped. */
  dropped(publication: Publication, reason: DropReason): void
  /** Whether a publish that is behind waits for acknowledgements, and not for the link. */
  waitsForAcknowledgement(publication: Publication): boolean
}

/** Where publishes wait for the link: bounded, and nothing in it grows old unseen. */
export class WaitingRoom {
  private readonly sweeper = new SweepTimer(() => this.dropLate())

  constructor(
    private readonly queue: OutboundQueue,
    private readonly options: Required<OutboundOptions>,
    private readonly observer: WaitingRoomObserver,
  ) {}

  /** Age of the oldest, in milliseconds. */
  get oldestMs(): number {
    const oldestMs = this.queue.oldestMs()
    return oldestMs === undefined ? 0 : performance.now() - oldestMs
  }

  /** Lets a publish wait. @returns why it is dropped instead */
  hold(publication: Publication, terms: PublishTerms, paced: PacedLink | undefined): DropReason | undefined {
    const waiting = waitingOf(publication, terms, this.options, paced?.nowMs ?? performance.now())
    const { bytes } = waiting
    const refused = POLICIES[waiting.mode].refuses(paced, this.queue.bytes + bytes, this.options)
    if (refused !== undefined) return refused
    const admission = this.queue.add(waiting, paced?.backlogBytes ?? 0)
    if (!admission.isAdmitted) return this.reasonOf(waiting, admission.reason)
    publication.waiting = waiting
    for (const [{ publication: displaced }, reason] of admission.displaced) this.dropOne(displaced, reason)
    this.sweeper.arm(this.queue.nextDeadlineMs)
    return undefined
  }

  /** The next in order that may still be written; without `mayAcknowledge` the next of QoS 0. */
  next(mayAcknowledge: boolean, nowMs: number): Waiting | undefined {
    const next = this.queue.next(mayAcknowledge)
    if (next === undefined || next.deadlineMs > nowMs) return next
    this.dropLate()
    return this.queue.next(mayAcknowledge)
  }

  /** @returns whether it was waiting */
  remove(waiting: Waiting): boolean {
    waiting.publication.waiting = undefined
    return this.queue.remove(waiting)
  }

  /** @returns whether it was waiting */
  withdraw({ waiting }: Publication): boolean {
    return waiting !== undefined && this.remove(waiting)
  }

  /** Drops all of these. */
  drop(reason: DropReason, picks: (waiting: Waiting) => boolean): void {
    for (const { publication } of this.queue.takeAll(picks)) this.dropOne(publication, reason)
    if (this.queue.size === 0) this.sweeper.stop()
  }

  private dropLate(): void {
    for (const waiting of this.queue.takeLate(performance.now())) {
      this.dropOne(waiting.publication, this.reasonOf(waiting, waiting.lateReason))
    }
    this.sweeper.arm(this.queue.nextDeadlineMs)
  }

  private dropOne(publication: Publication, reason: DropReason): void {
    publication.waiting = undefined
    this.observer.dropped(publication, reason)
  }

  /** Acknowledgements that stay away are another thing than a slow link. */
  private reasonOf({ publication }: Waiting, reason: DropReason): DropReason {
    if (reason !== 'backlog' || !this.observer.waitsForAcknowledgement(publication)) return reason
    return 'in-flight-full'
  }
}
