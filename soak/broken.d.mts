/** Builds with one deliberate fault each, by name. */
export const BROKEN: Readonly<
  Record<string, { readonly file: string; readonly find: string; readonly laws: readonly string[] }>
>
