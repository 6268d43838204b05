import { setTimeout as sleep } from 'node:timers/promises'
import { Child } from '../child.js'
import type { Garbage } from './garbage-process.js'

export const GARBAGE_PER_SECOND = 1_000

/** A device that publishes unusable messages, in a process of its own. */
export class Flood {
  /** What has been sent so far. */
  garbage: Garbage = { sent: 0, elapsedMs: 0 }
  private readonly child: Child

  constructor(
    brokerUrl: string,
    private readonly seconds: number,
  ) {
    const total = Math.round(GARBAGE_PER_SECOND * seconds)
    this.child = new Child('demo/garbage-process.js', [brokerUrl, String(GARBAGE_PER_SECOND), String(total)])
    this.child.onMessage(garbage => {
      this.garbage = garbage as Garbage
    })
  }

  /** Resolves when all of it was sent. With a slow broker this takes longer, up to twice the time. */
  async whenEnded(): Promise<void> {
    await Promise.race([sleep(this.seconds * 2_000, undefined, { ref: false }), this.child.whenEnded])
    await this.stop()
  }

  async stop(): Promise<void> {
    await this.child.stop()
  }
}

export function perSecond({ sent, elapsedMs }: Garbage): number {
  return elapsedMs === 0 ? 0 : Math.round((sent / elapsedMs) * 1_000)
}
