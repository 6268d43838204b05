const BUCKET_MS = 5
/** Ages of two minutes and more are counted together. */
const BUCKETS = 24_000

/** Counts ages in buckets of 5 ms, so that its size does not depend on their number. */
export class AgeHistogram {
  private readonly buckets = new Uint32Array(BUCKETS)
  count = 0

  add(ageMs: number): void {
    const bucket = Math.min(BUCKETS - 1, Math.max(0, Math.floor(ageMs / BUCKET_MS)))
    this.buckets[bucket] = (this.buckets[bucket] ?? 0) + 1
    this.count += 1
  }

  /** The age that a share of the readings does not exceed, in milliseconds. */
  percentile(share: number): number {
    let left = Math.ceil(this.count * share)
    for (const [bucket, count] of this.buckets.entries()) {
      left -= count
      if (left <= 0 && this.count > 0) return (bucket + 1) * BUCKET_MS
    }
    return 0
  }
}
