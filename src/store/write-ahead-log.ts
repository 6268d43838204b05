import { readFileSync } from 'node:fs'

/** The format of the log is described at https://sqlite.org/fileformat2.html#the_write_ahead_log */
const HEADER_BYTES = 32
const FRAME_HEADER_BYTES = 24
/** Size of a page, if the header is damaged. */
const PAGE_BYTES = 4_096
/** The checksums use big-endian words; with the magic number before it, little-endian ones. */
const BIG_ENDIAN_MAGIC = 0x377f0683

/**
 * Returns the number of commits in the log of a database that SQLite will ignore, because something before them is damaged. A
 * commit that was not completed, and what an earlier use of the log has left, do not count.
 */
export function commitsAfterDamage(log: string): number {
  const bytes = readLog(log)
  if (bytes === undefined || bytes.length < HEADER_BYTES) return 0
  const magic = bytes.readUInt32BE(0)
  const sums = new Checksum(magic === BIG_ENDIAN_MAGIC)
  sums.add(bytes.subarray(0, HEADER_BYTES - 8))
  let isIntact = (magic | 1) === BIG_ENDIAN_MAGIC && sums.equals(bytes, HEADER_BYTES - 8)
  const frameBytes = FRAME_HEADER_BYTES + (isIntact ? bytes.readUInt32BE(8) : PAGE_BYTES)
  // Both salts change when the log is used again from its start.
  const salts = isIntact ? 16 : HEADER_BYTES + 8
  const isOfThisUse = (at: number): boolean =>
    at + frameBytes <= bytes.length && bytes.compare(bytes, salts, salts + 8, at + 8, at + 16) === 0
  let ignored = 0
  for (let at = HEADER_BYTES; at + frameBytes <= bytes.length; at += frameBytes) {
    if (!isOfThisUse(at)) {
      if (isIntact && !isOfThisUse(at + frameBytes)) break
      isIntact = false
      continue
    }
    if (isIntact) {
      sums.add(bytes.subarray(at, at + 8))
      sums.add(bytes.subarray(at + FRAME_HEADER_BYTES, at + frameBytes))
      isIntact = sums.equals(bytes, at + 16)
    }
    const isCommit = bytes.readUInt32BE(at + 4) !== 0
    if (!isIntact && isCommit) ignored += 1
  }
  return ignored
}

function readLog(log: string): Buffer | undefined {
  try {
    return readFileSync(log)
  } catch {
    // There is none, or SQLite will report the error.
    return undefined
  }
}

/** The checksum of the log, which goes on from frame to frame. */
class Checksum {
  private first = 0
  private second = 0

  constructor(private readonly isBigEndian: boolean) {}

  add(bytes: Buffer): void {
    for (let at = 0; at < bytes.length; at += 8) {
      this.first = (this.first + this.word(bytes, at) + this.second) >>> 0
      this.second = (this.second + this.word(bytes, at + 4) + this.first) >>> 0
    }
  }

  equals(bytes: Buffer, at: number): boolean {
    return bytes.readUInt32BE(at) === this.first && bytes.readUInt32BE(at + 4) === this.second
  }

  private word(bytes: Buffer, at: number): number {
    return this.isBigEndian ? bytes.readUInt32BE(at) : bytes.readUInt32LE(at)
  }
}
