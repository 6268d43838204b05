import type { HeldBytes } from '../../core/inbound/held-bytes.js'
import type { InboundOptions } from '../../options/options.js'
import type { PublishPacket } from '../connection/link.js'
import type { InboundHandler, RunSurroundings } from './inbound-handler.js'

/** What the dispatcher asks of the session around it. */
export interface DispatcherRules extends Required<InboundOptions>, RunSurroundings {
  /** The broker keeps the session of this client at the end of a connection. */
  readonly keepsSession: boolean
  /** What this process holds of what came in. */
  readonly held: HeldBytes
  readonly select: (packet: PublishPacket) => readonly InboundHandler[]
  /** Whether something of ours waits for the broker to answer. */
  readonly awaitsAnswers: () => boolean
}
