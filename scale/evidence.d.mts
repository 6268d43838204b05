export interface Run {
  readonly id: number
  /** Process that handled the message. */
  readonly name: string
  readonly atMs: number
}

export function handledIn(journals: Iterable<readonly [name: string, file: string]>): Map<number, Run[]>
export function lostOf(acknowledged: readonly number[], handled: ReadonlyMap<number, Run[]>): number[]
export function repeatsOf(handled: ReadonlyMap<number, Run[]>): [id: number, runs: Run[]][]
export function outOfOrder(handled: ReadonlyMap<number, Run[]>, devices: number): number
