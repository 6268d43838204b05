/** What one process holds at a quiet point. */
export type Measures = Readonly<Record<string, number>>

export function leaks(
  actors: readonly { readonly name: string; readonly mayBeKilled: boolean }[],
  points: readonly (readonly Measures[])[],
): Generator<string | undefined>
