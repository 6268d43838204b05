/** Keeps a log bounded while a counter runs: true at 1, 2, 4, 8, … */
export function isPowerOfTwo(count: number): boolean {
  return count > 0 && Number.isInteger(Math.log2(count))
}
