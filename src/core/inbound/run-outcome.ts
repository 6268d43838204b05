/** What becomes of a message whose handler failed for the last time. */
export type FailurePolicy = 'ack' | 'disconnect' | { readonly deadLetter: string }

/** How one handler of a message ended. */
export type RunOutcome =
  | 'handled'
  /** It failed, and the message is acknowledged all the same. */
  | 'failed'
  | 'deadLettered'
  /** It had to make room for newer messages, and did not run. */
  | 'dropped'
  /** The broker delivers the message again. */
  | 'givenBack'
