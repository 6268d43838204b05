const SLAB_BYTES = 65_536
/** A longer payload is handed on as it is, instead of being copied. */
const COPY_BYTES = 8_192

/** Collects packets for one write, in memory that is never used twice. */
export class WriteBatch {
  private slab = Buffer.alloc(0)
  /** What stands before this was taken. */
  private start = 0
  private end = 0
  private chunks: Buffer[] = []
  private chunkBytes = 0
  /** How many were put in. */
  packets = 0

  get bytes(): number {
    return this.chunkBytes + this.end - this.start
  }

  /** Where the next `length` bytes go, in `buffer`; `commit` says how many of them were written. */
  reserve(length: number): number {
    if (this.end + length > this.slab.length) {
      this.cut()
      this.slab = Buffer.allocUnsafeSlow(Math.max(SLAB_BYTES, length))
      this.start = 0
      this.end = 0
    }
    return this.end
  }

  get buffer(): Buffer {
    return this.slab
  }

  commit(end: number): void {
    this.end = end
  }

  append(bytes: Buffer): void {
    if (bytes.length > COPY_BYTES) {
      this.cut()
      this.chunks.push(bytes)
      this.chunkBytes += bytes.length
      return
    }
    const at = this.reserve(bytes.length)
    this.slab.set(bytes, at)
    this.end = at + bytes.length
  }

  /** Everything so far, in order. */
  take(): Buffer[] {
    this.cut()
    const { chunks } = this
    this.chunks = []
    this.chunkBytes = 0
    this.packets = 0
    return chunks
  }

  private cut(): void {
    if (this.end === this.start) return
    this.chunks.push(this.slab.subarray(this.start, this.end))
    this.chunkBytes += this.end - this.start
    this.start = this.end
  }
}
