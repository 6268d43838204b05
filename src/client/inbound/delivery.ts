import type { AckSlot } from '../../core/inbound/ack-window.js'
import type { RunState, SchedulerRun } from '../../core/inbound/run-scheduler.js'
import { bytesOf } from '../../core/protocol/packet-length.js'
import type { PublishPacket } from '../connection/link.js'
import type { InboundHandler, RunOutcome } from './inbound-handler.js'
import type { RunContext } from './run-context.js'

/** One handler that is to run for one message. */
export class HandlerRun implements SchedulerRun<InboundHandler> {
  state: RunState = 'waiting'
  openRequests = 0
  holdsLane = false
  isTracked = false
  /** The message may be acknowledged, as far as this handler is concerned. */
  isEnded = false
  /** Set once the handler was called while runs are tracked. */
  context: RunContext | undefined
  /** Set while the run was paused and waits for a slot. */
  goOn: (() => void) | undefined

  constructor(
    readonly delivery: Delivery,
    readonly handler: InboundHandler,
    readonly key: string | undefined,
  ) {}
}

/** Which outcome of several handlers is the one of the message. */
const GRAVITY: readonly RunOutcome[] = ['handled', 'failed', 'deadLettered', 'dropped', 'givenBack']

/** One message on its way through all its handlers. */
export class Delivery {
  /** Of a QoS 1 message. */
  ack: AckSlot<Delivery> | undefined
  runs: readonly HandlerRun[] = []
  /** Handlers that have begun. */
  started = 0
  /** All handlers have ended. */
  isDone = false
  /** Its bytes count as held. */
  isCharged = false
  private ended = 0
  private gravest: RunOutcome = 'handled'

  readonly bytes: number

  constructor(readonly packet: PublishPacket) {
    this.bytes = bytesOf(packet)
  }

  get outcome(): RunOutcome {
    return this.gravest
  }

  /** A handler has ended. @returns whether it was the last one */
  end(outcome: RunOutcome): boolean {
    this.ended += 1
    if (outcome !== 'handled' && GRAVITY.indexOf(outcome) > GRAVITY.indexOf(this.gravest))
      this.gravest = outcome
    return this.ended === this.runs.length
  }

  /** Nobody waits for the handlers that run. */
  giveUp(): void {
    this.gravest = 'givenBack'
  }

  /** Whether a packet is this message once more. */
  isSameAs({ topic, payload }: PublishPacket): boolean {
    const own = this.packet
    return own.topic === topic && Buffer.from(own.payload).equals(Buffer.from(payload))
  }
}
