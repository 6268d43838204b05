/** The size of a read that leaves more behind: a record of TLS. A plain socket gives up to 64 KiB at a time. */
export const FULL_READ_BYTES = 16_384
const LOOK_MS = 50

/** Notices that more arrives than this process reads: its reads are full then, and responses wait behind messages. */
export class ReadingLag {
  behindSinceMs: number | undefined
  /** When it had read everything again. */
  caughtUpMs = Number.NEGATIVE_INFINITY
  /** How many bytes were read. */
  bytes = 0
  private timer: NodeJS.Timeout | undefined
  private hasRead = false

  /** For full reads, and while it is behind. */
  read(bytes: number): void {
    if (bytes < FULL_READ_BYTES) return this.catchUp()
    this.hasRead = true
    this.behindSinceMs ??= performance.now()
    this.timer ??= setTimeout(this.look, LOOK_MS)
  }

  stop(): void {
    clearTimeout(this.timer)
    this.behindSinceMs = undefined
  }

  private readonly look = (): void => {
    this.timer = undefined
    this.hasRead = false
    // Between a timer and this, the event loop reads what has arrived.
    setImmediate(() => {
      if (this.behindSinceMs !== undefined && !this.hasRead) this.catchUp()
      else if (this.behindSinceMs !== undefined) this.timer ??= setTimeout(this.look, LOOK_MS)
    })
  }

  private catchUp(): void {
    clearTimeout(this.timer)
    this.timer = undefined
    this.behindSinceMs = undefined
    this.caughtUpMs = performance.now()
  }
}
