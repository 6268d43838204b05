import type { MqttError } from '../../core/errors.js'
import { InboundSizeGuard } from '../../core/protocol/packet-fields.js'
import { tooLarge } from './protocol-errors.js'

/** The size of a read that leaves more behind: a record of TLS. A plain socket gives up to 64 KiB at a time. */
const FULL_READ_BYTES = 16_384
const LOOK_MS = 50

/**
 * Watches what is read: packets that are too large, and more that arrives than this process reads. Its reads are full
 * then, and responses wait behind messages.
 */
export class ReadWatch {
  behindSinceMs: number | undefined
  /** When it had read everything again. */
  caughtUpMs = Number.NEGATIVE_INFINITY
  /** How many bytes were read. */
  bytes = 0
  private timer: NodeJS.Timeout | undefined
  private hasRead = false
  private readonly guard: InboundSizeGuard

  constructor(
    private readonly maxPacketBytes: number,
    private readonly onTooLarge: (cause: MqttError) => void,
  ) {
    this.guard = new InboundSizeGuard(maxPacketBytes)
  }

  readonly read = (bytes: Uint8Array): void => {
    this.bytes += bytes.length
    if (bytes.length >= FULL_READ_BYTES) this.fullRead()
    else if (this.behindSinceMs !== undefined) this.catchUp()
    const size = this.guard.feed(bytes)
    if (size !== undefined) this.onTooLarge(tooLarge(size, this.maxPacketBytes))
  }

  private fullRead(): void {
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
