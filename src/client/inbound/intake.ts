import type { InboundOptions } from '../../options/options.js'
import type { Delivery, HandlerRun } from './delivery.js'

/** What must go so that no more waits than may. */
export interface Overflow {
  /** The link is to wait instead, where it can. */
  readonly mayStall: boolean
  readonly drop: readonly HandlerRun[]
}

/** QoS 0 messages that wait for handlers: bounded, since the broker does not wait for them to be handled. */
export class Intake {
  /** In the order in which they came, with those of their handlers that have not begun. */
  private readonly waiting = new Map<Delivery, HandlerRun | Set<HandlerRun>>()
  private readonly newest = new Map<string, HandlerRun>()

  constructor(private readonly options: Pick<Required<InboundOptions>, 'maxQueued' | 'overflow'>) {}

  get size(): number {
    return this.waiting.size
  }

  /** Whether there is room again for what a stalled link holds. */
  get hasRoom(): boolean {
    return this.waiting.size <= this.options.maxQueued / 2
  }

  /** In the order in which they came. */
  messages(): Iterable<Delivery> {
    return this.waiting.keys()
  }

  /** One more waits. */
  add(run: HandlerRun): Overflow | undefined {
    const { maxQueued, overflow } = this.options
    const isFull = this.waiting.size >= maxQueued && !this.waiting.has(run.delivery)
    if (overflow === 'drop-newest' && isFull) return { mayStall: false, drop: [run] }
    const replaced = overflow === 'latest' ? this.replace(run) : undefined
    const oldest = isFull ? this.oldest() : []
    const runs = this.waiting.get(run.delivery)
    // Most messages have one handler: a set of one would be most of what a message costs.
    if (runs === undefined) this.waiting.set(run.delivery, run)
    else if (runs instanceof Set) runs.add(run)
    else this.waiting.set(run.delivery, new Set([runs, run]))
    if (replaced !== undefined) return { mayStall: false, drop: [replaced] }
    return isFull ? { mayStall: overflow === 'stall', drop: oldest } : undefined
  }

  /** It waits no longer. */
  remove(run: HandlerRun): void {
    const runs = this.waiting.get(run.delivery)
    if (runs === run) this.waiting.delete(run.delivery)
    else if (!(runs instanceof Set) || !runs.delete(run)) return
    else if (runs.size === 0) this.waiting.delete(run.delivery)
    if (this.options.overflow !== 'latest') return
    const key = keyOf(run)
    if (this.newest.get(key) === run) this.newest.delete(key)
  }

  private oldest(): HandlerRun[] {
    for (const runs of this.waiting.values()) return runs instanceof Set ? [...runs] : [runs]
    return []
  }

  private replace(run: HandlerRun): HandlerRun | undefined {
    const key = keyOf(run)
    const older = this.newest.get(key)
    this.newest.set(key, run)
    return older
  }
}

/** The newest of a topic for each handler: one may be ahead of the other. */
function keyOf({ handler, delivery }: HandlerRun): string {
  return `${handler.id} ${delivery.packet.topic}`
}
