import type { HeldBytes } from '../../core/inbound/held-bytes.js'
import type { InboundOptions } from '../../options/options.js'
import type { PublishPacket } from '../connection/link.js'
import type { HeldUp } from './ack-watch.js'
import type { InboundHandler, RunSurroundings } from './inbound-handler.js'

/** What the dispatcher asks of the session around it. */
export interface DispatcherRules extends Required<InboundOptions>, RunSurroundings {
  /** The broker keeps the session of this client at the end of a connection. */
  readonly keepsSession: boolean
  /** What this process holds of what came in. */
  readonly held: HeldBytes
  readonly select: (packet: PublishPacket) => readonly InboundHandler[]
  /** @param count of them so far */
  readonly onUnmatched: (topic: string, count: number) => void
  /** @param count of them so far */
  readonly onDropped: (count: number) => void
  /** Whether something of ours waits for the broker to answer. */
  readonly awaitsAnswers: () => boolean
  /** The broker sends more than may wait, and does not wait for acknowledgements; the connection must end. */
  readonly onOverrun: () => void
  /** A message keeps the acknowledgements of others back for long; told every second. */
  readonly onHeldUp: (heldUp: HeldUp) => void
}
