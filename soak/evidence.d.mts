/** What the journals say. */
export class Evidence {
  constructor(perLife?: number)
  /** Takes one line of the journal of this process. */
  take(process: string, line: string): void
}
