/** Numbers that look random and are the same for the same seed and name. */
export class Random {
  constructor(seed, name = '') {
    this.state = seed | 0
    for (const letter of name) this.state = (Math.imul(this.state, 31) + letter.charCodeAt(0)) | 0
  }

  /** From 0 to below 1. */
  next() {
    this.state = (this.state + 0x6d2b79f5) | 0
    let mixed = Math.imul(this.state ^ (this.state >>> 15), 1 | this.state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }

  /** An integer from `least` to `most`. */
  between(least, most) {
    return least + Math.floor(this.next() * (most - least + 1))
  }

  /** True for this part of the calls. */
  chance(part) {
    return this.next() < part
  }

  pick(items) {
    return items[this.between(0, items.length - 1)]
  }
}
