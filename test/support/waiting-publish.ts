import { type OutboundMessage, Publication } from '../../src/core/outbound/outbound-message.js'
import type { PublishOutcome } from '../../src/core/outbound/publish-outcome.js'
import type { WhenBlocked } from '../../src/options/options.js'

export function outboundMessage(fields: Partial<OutboundMessage> = {}): OutboundMessage {
  return { topic: 't', payload: Buffer.from('x'), qos: 0, retain: false, ...fields }
}

/** A publish that keeps what it settled with. */
export function recordedPublication(message: OutboundMessage = outboundMessage()) {
  const outcomes: PublishOutcome[] = []
  const publication = new Publication(message)
  publication.resolve = outcome => outcomes.push(outcome)
  return { publication, outcomes }
}

interface WaitingFields
  extends Partial<Pick<Publication, 'bytes' | 'enteredMs' | 'deadlineMs' | 'lateReason'>> {
  readonly topic?: string
  readonly qos?: 0 | 1 | 2
  readonly retain?: boolean
}

let made = 0

/** A publish that waits, unlike every other one, of 10 bytes and without a deadline where nothing else is said. */
export function waitingPublish(
  mode: WhenBlocked,
  { topic = 't', qos = 0, retain = false, ...fields }: WaitingFields = {},
): Publication {
  made += 1
  const payload = Buffer.from(String(made))
  const lateReason = mode === 'drop' ? 'backlog' : 'expired'
  const publication = new Publication(outboundMessage({ topic, payload, qos, retain }))
  return Object.assign(publication, { mode, bytes: 10, lateReason, ...fields })
}
