export interface Score {
  readonly killed: number
  readonly total: number
  /** With one decimal. */
  readonly percent: string
}
export function scoreOf(mutants: readonly { readonly status: string }[]): Score
/** @throws Error if the page has no place for the table */
export function withScore(page: string, folder: string, score: Score): string
