import { randomFillSync } from 'node:crypto'

const BYTES = 16
const POOL_BYTES = 4_096

/** Correlation Data that nobody can guess (MQTT 5, 4.10): whoever may publish could answer in place of the responder otherwise. */
export class Correlation {
  private pool = Buffer.alloc(0)
  private at = 0

  next(): Buffer {
    if (this.at + BYTES > this.pool.length) {
      this.pool = randomFillSync(Buffer.alloc(POOL_BYTES))
      this.at = 0
    }
    this.at += BYTES
    return this.pool.subarray(this.at - BYTES, this.at)
  }
}
