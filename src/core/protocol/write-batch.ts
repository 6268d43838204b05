const SLAB_BYTES = 65_536
/** Longer payloads are not copied. */
const COPY_BYTES = 8_192

/** Collects packets for one write, in memory that is never reused. */
export class WriteBatch {
  private slab = Buffer.alloc(0)
  /** Start of the bytes that have not been taken yet. */
  private start = 0
  private end = 0
  private chunks: Buffer[] = []
  private chunkBytes = 0
  /** Number of packets in the batch. */
  packets = 0

  get bytes(): number {
    return this.chunkBytes + this.end - this.start
  }

  /** Reserves `length` bytes in `buffer` and returns their offset. Call `commit` with the number of bytes written. */
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

  /** Takes all collected bytes, in order. */
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
