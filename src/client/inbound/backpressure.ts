import type { Link } from '../connection/link.js'
import type { DispatcherRules } from './dispatcher-rules.js'
import { Stall } from './stall.js'

/** So many times as many as may be held, and it is no use to read on. */
const OVERRUN = 10

/**
 * QoS 1 and 2 messages cannot be dropped. While more of them are held than may be, nothing is read; and when that would
 * hold up what handlers wait for, what is read all the same ends the connection once there is too much of it.
 */
export class Backpressure {
  private readonly stall: Stall
  /** Nothing is read, or is only read since handlers may wait for it. */
  isHolding = false
  /** Where the broker knows no limit. */
  private readonly most: number

  constructor(
    private readonly rules: DispatcherRules,
    /** QoS 1 messages without their PUBACK on the present connection. */
    private readonly unacknowledged: { readonly size: number },
    /** QoS 2 messages that the broker has handed over. */
    private readonly messages: { readonly qos2: number },
  ) {
    this.stall = new Stall(rules.awaitsAnswers)
    this.most = rules.maxQueued + rules.maxInFlight
  }

  /** A message of QoS 1 or 2 came. */
  bound(link: Link): void {
    if (this.rules.held.isHopeless) return this.rules.onOverrun()
    if (!this.isFull(link.protocolVersion === 5 ? this.rules.maxInFlight : this.most)) return
    if (!this.pause(link) && this.isFull(OVERRUN * this.most)) this.rules.onOverrun()
  }

  /** @returns false when it must be read on */
  pause(link: Link | undefined): boolean {
    if (link === undefined) return false
    this.isHolding = true
    return this.stall.pause(link)
  }

  /** QoS 0 has room again. */
  release(): void {
    if (!this.isFull(this.rules.maxInFlight)) this.end()
  }

  /** A handler has come to an end, or to a pause. */
  progressed(): void {
    this.stall.progressed()
  }

  /** No more work is taken. */
  end(): void {
    this.isHolding = false
    this.stall.release()
  }

  /** The connection is gone. */
  forget(): void {
    this.isHolding = false
    this.stall.forget()
  }

  private isFull(most: number): boolean {
    const { size } = this.unacknowledged
    const { qos2 } = this.messages
    if (this.rules.held.isOver || size > most) return true
    return qos2 > 0 && size + qos2 > Math.max(most, this.most)
  }
}
