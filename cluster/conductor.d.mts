import type { Evidence } from './verdict.d.mts'

export interface Cluster {
  readonly folder: string
  readonly nodes: readonly { readonly url: string; readonly name: string }[]
  start(): Promise<void>
  isReady(): boolean
  children(): readonly { signal(name: string): void }[]
}

export class Conductor {
  constructor(settings: { readonly rounds: number; readonly mostMs: number; say(line: string): void })
  /** Publishes that had not settled, or were still stored, when the load had ended. */
  readonly left: number
  run(cluster: Cluster): Promise<void>
  evidence(): Evidence
  end(): void
}
