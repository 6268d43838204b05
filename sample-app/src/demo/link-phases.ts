import type { LinkCondition } from '../truck/messages.js'

/** `flooded`: the links are free, and broker and service are busy with garbage. */
export type Phase = LinkCondition['mode'] | 'flooded'

interface Begun {
  readonly atMs: number
  readonly phase: Phase
}

const PHASES_KEPT = 100

/** What the links of the compared trucks went through, so that a reading is judged by what it met on its way. */
export class LinkPhases {
  private readonly begun: Begun[] = [{ atMs: 0, phase: 'free' }]

  begin(phase: Phase, atMs = Date.now()): void {
    this.begun.push({ atMs, phase })
    if (this.begun.length > PHASES_KEPT) this.begun.shift()
  }

  /** The phases that a reading met: the one in which it was taken, and all that began before it arrived. */
  between(fromMs: number, toMs: number): ReadonlySet<Phase> {
    const first = this.begun.findLastIndex(({ atMs }) => atMs <= fromMs)
    const met = this.begun.slice(Math.max(0, first)).filter(({ atMs }) => atMs <= toMs)
    return new Set(met.map(({ phase }) => phase))
  }
}
