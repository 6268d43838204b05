import { describe, expect, it } from 'vitest'
import { type BufferLimits, OutboundBuffer } from '../../../../src/core/outbound/outbound-buffer.js'
import type { Publication } from '../../../../src/core/outbound/outbound-message.js'
import type { DropReason } from '../../../../src/core/outbound/publish-outcome.js'
import { SeededRandom } from '../../../support/seeded-random.js'
import { waitingPublish } from '../../../support/waiting-publish.js'

const OPERATIONS = 3_000

const isPlain = ({ message }: Publication) => message.qos === 0
const sumOf = (all: readonly Publication[]) => all.reduce((sum, { bytes }) => sum + bytes, 0)

/** The same as the buffer, as a plain list. */
class NaiveBuffer {
  list: Publication[] = []

  constructor(private readonly limits: BufferLimits) {}

  get kept(): Publication[] {
    return this.list.filter(({ mode }) => mode !== 'drop')
  }

  /** What `add` of the buffer must say. */
  add(waiting: Publication, backlogBytes: number) {
    const displaced = this.room(waiting, backlogBytes)
    if (displaced === undefined)
      return { isAdmitted: false, reason: waiting.mode === 'drop' ? 'backlog' : 'queue-full' }
    const [first] = displaced
    const place = first === undefined ? -1 : this.list.indexOf(first[0])
    const keepsPlace = first?.[1] === 'superseded' && isPlain(first[0]) === isPlain(waiting)
    if (keepsPlace) this.list[place] = waiting
    else this.list = [...this.list.filter(one => !displaced.some(([gone]) => gone === one)), waiting]
    return { isAdmitted: true, displaced }
  }

  next(mayAcknowledge: boolean): Publication | undefined {
    return this.list.find(waiting => mayAcknowledge || isPlain(waiting))
  }

  take(picks: (waiting: Publication) => boolean): Publication[] {
    const taken = this.list.filter(picks)
    this.list = this.list.filter(waiting => !picks(waiting))
    return taken
  }

  private room(waiting: Publication, backlogBytes: number): [Publication, DropReason][] | undefined {
    const { maxQueued, maxQueuedBytes, overflow } = this.limits
    const backlog = this.list.filter(({ mode }) => mode === 'drop')
    if (waiting.mode === 'drop')
      return backlog.length === 0 || sumOf(backlog) + waiting.bytes <= backlogBytes ? [] : undefined
    const fitsWithout = (gone: readonly Publication[], more: number) =>
      this.kept.length - gone.length + 1 <= more &&
      sumOf(this.kept) - sumOf(gone) + waiting.bytes <= maxQueuedBytes
    const older = this.older(waiting)
    if (older !== undefined) return fitsWithout([older], Infinity) ? [[older, 'superseded']] : undefined
    if (fitsWithout([], maxQueued)) return []
    if (waiting.mode !== 'queue' || overflow === 'drop-newest') return undefined
    const queue = this.list.filter(({ mode }) => mode === 'queue')
    for (let count = 1; count <= queue.length; count += 1) {
      const gone = queue.slice(0, count)
      if (fitsWithout(gone, maxQueued)) return gone.map(oldest => [oldest, 'queue-full'])
    }
    return undefined
  }

  private older({ mode, message }: Publication): Publication | undefined {
    if (mode !== 'latest') return undefined
    return this.list.find(
      other =>
        other.mode === 'latest' &&
        other.message.topic === message.topic &&
        other.message.retain === message.retain,
    )
  }
}

/** A buffer and its model, and one operation after the other on both. */
class Pair {
  private readonly buffer: OutboundBuffer
  private readonly naive: NaiveBuffer
  private nowMs = 0

  constructor(
    private readonly random: SeededRandom,
    private readonly limits: BufferLimits,
  ) {
    this.buffer = new OutboundBuffer(limits)
    this.naive = new NaiveBuffer(limits)
  }

  step(): void {
    const { random } = this
    this.nowMs += random.below(3)
    const kind = random.below(10)
    if (kind < 6) this.add()
    else if (kind < 8) this.write(random.chance(0.7))
    else if (kind < 9) this.removeAny()
    else this.takeLate()
    this.compare()
  }

  private add(): void {
    const { random, nowMs } = this
    const waiting = waitingPublish(random.pick(['drop', 'latest', 'queue', 'wait']), {
      topic: `t/${random.below(6)}`,
      qos: random.pick([0, 0, 1, 2]),
      retain: random.chance(0.3),
      bytes: 1 + random.below(random.chance(0.05) ? 2 * this.limits.maxQueuedBytes : 40),
      enteredMs: nowMs,
      deadlineMs: random.chance(0.3) ? Infinity : nowMs + random.below(60),
    })
    const backlogBytes = random.below(200)
    const expected = this.naive.add(waiting, backlogBytes)
    expect(this.buffer.add(waiting, backlogBytes)).toEqual(expected)
  }

  private write(mayAcknowledge: boolean): void {
    const next = this.buffer.next(mayAcknowledge)
    expect(next).toBe(this.naive.next(mayAcknowledge))
    if (next === undefined) return
    expect(this.buffer.remove(next)).toBe(true)
    expect(this.buffer.remove(next)).toBe(false)
    this.naive.take(waiting => waiting === next)
  }

  private removeAny(): void {
    const { random } = this
    const [mode, limit] = [random.pick(['drop', 'latest', 'queue', 'wait']), random.below(10)]
    const picks = (waiting: Publication) => waiting.mode === mode && waiting.bytes < limit
    expect(new Set(this.buffer.takeAll(picks))).toEqual(new Set(this.naive.take(picks)))
  }

  private takeLate(): void {
    const late = this.naive.take(({ deadlineMs }) => deadlineMs <= this.nowMs)
    expect(new Set(this.buffer.takeLate(this.nowMs))).toEqual(new Set(late))
  }

  private compare(): void {
    const { buffer, naive, limits } = this
    const { list, kept } = naive
    expect([buffer.size, buffer.bytes]).toEqual([list.length, sumOf(list)])
    expect(kept.length).toBeLessThanOrEqual(limits.maxQueued)
    expect(sumOf(kept)).toBeLessThanOrEqual(limits.maxQueuedBytes)
    expect(buffer.isEmpty(0)).toBe(!list.some(isPlain))
    expect(buffer.isEmpty(1)).toBe(list.every(isPlain))
    expect(buffer.oldestMs()).toBe(
      list.length === 0 ? undefined : Math.min(...list.map(one => one.enteredMs)),
    )
    // It may be too early, after one was taken out, but never too late.
    expect(buffer.nextDeadlineMs).toBeLessThanOrEqual(Math.min(...list.map(one => one.deadlineMs)))
    for (const mayAcknowledge of [true, false])
      expect(buffer.next(mayAcknowledge)).toBe(naive.next(mayAcknowledge))
  }
}

describe.each(['drop-oldest', 'drop-newest'] as const)('the buffer with overflow %s', overflow => {
  it.each([
    [1, 50],
    [5, 100],
    [20, 300],
    [1_000, 100],
    [20, 1_000_000],
  ])('behaves like a plain list, with %i messages and %i bytes', (maxQueued, maxQueuedBytes) => {
    const pair = new Pair(new SeededRandom(maxQueued + maxQueuedBytes), {
      maxQueued,
      maxQueuedBytes,
      overflow,
    })
    for (let step = 0; step < OPERATIONS; step += 1) pair.step()
  })
})
