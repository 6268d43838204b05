import type { Link } from '../connection/link.js'

/** Without a handler that ends for so long, the ones that run may wait for what cannot be read. */
const PATIENCE_MS = 250

/**
 * Keeps the broker from sending more than handlers take, by not reading. What handlers publish with QoS 1 and request
 * on the same connection is answered behind the messages that are not read: before they would wait for ever, it
 * is read on, and messages make room for others after all.
 */
export class Stall {
  private paused: Link | undefined
  private isYielding = false
  private hasProgressed = false
  private timer: NodeJS.Timeout | undefined

  /** @param awaitsAnswers whether something of ours waits for the broker to answer */
  constructor(private readonly awaitsAnswers: () => boolean) {}

  /** @returns false when it must be read on */
  pause(link: Link): boolean {
    if (this.isYielding) return false
    if (this.paused === undefined) {
      link.pauseIntake()
      this.paused = link
      this.watch()
    }
    return true
  }

  /** A handler has ended. */
  progressed(): void {
    this.hasProgressed = true
  }

  /** There is room again. */
  release(): void {
    this.isYielding = false
    if (this.paused === undefined) return
    const link = this.paused
    this.forget()
    link.resumeIntake()
  }

  /** The connection is gone. */
  forget(): void {
    clearTimeout(this.timer)
    this.paused = undefined
    this.isYielding = false
  }

  private watch(): void {
    this.hasProgressed = false
    this.timer = setTimeout(() => {
      if (this.hasProgressed || !this.awaitsAnswers()) return this.watch()
      const link = this.paused
      this.forget()
      this.isYielding = true
      link?.resumeIntake()
    }, PATIENCE_MS)
  }
}
