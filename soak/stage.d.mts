/** The processes of a run, without its actors: the broker and the witness. */
export class Stage {
  constructor(seed: number)
  readonly broker: { call(method: 'place'): Promise<{ readonly port: number }> }
  open(cast: readonly []): Promise<void>
  /** @returns the process ids that do not end */
  close(isKept: boolean): Promise<number[]>
}
