export interface Total {
  readonly publishes: number
  /** Number of publishes by their last outcome. */
  readonly ends: Readonly<Record<string, number>>
  /** Publishes that a handler has finished at least once. */
  readonly handled: number
  /** Further handler runs. */
  readonly repeats: number
}

export interface Effect {
  /** Clients that were connected to the node. */
  readonly cut: number
  /** In ms; undefined if none was cut. */
  readonly connected: number | undefined
  readonly acknowledged: number
  readonly handled: number
}

export class Evidence {
  /** Takes one line of the journal of this process. */
  take(process: string, line: string): void
  missing(): string[]
  unknown(): string[]
  totals(): Map<string, Total>
  effectOf(kill: { readonly atMs: number; readonly url: string }, untilMs: number): Effect
}

export function median(values: readonly (number | undefined)[]): number | undefined
