/** Keeps a log bounded while a counter runs: true at 1, 2, 4, 8, … */
export function isPowerOfTwo(count: number): boolean {
  return count > 0 && Number.isInteger(Math.log2(count))
}

const LONGEST = 200

/** A text from outside for a log: quoted, without control characters, and not longer than a line may be. */
export function printable(text: string): string {
  return JSON.stringify(text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text)
}
