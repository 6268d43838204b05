/** A broker that `start` runs on the loopback address. */
export interface InstalledBroker {
  readonly id: string
  readonly title: string
  /** Undefined if it is not installed. */
  version(): string | undefined
}

export const BROKERS: readonly InstalledBroker[]
