import type { OutboundMessage, Publication, Waiting } from '../../src/core/outbound/outbound-message.js'
import type { PublishOutcome } from '../../src/core/outbound/publish-outcome.js'
import type { WhenBlocked } from '../../src/options/options.js'

export function outboundMessage(fields: Partial<OutboundMessage> = {}): OutboundMessage {
  return { topic: 't', payload: Buffer.from('x'), qos: 0, retain: false, ...fields }
}

/** A publish that keeps what it settled with. */
export class RecordedPublication implements Publication {
  readonly outcomes: PublishOutcome[] = []
  readonly errors: unknown[] = []

  constructor(readonly message: OutboundMessage = outboundMessage()) {}

  settle(outcome: PublishOutcome): void {
    this.outcomes.push(outcome)
  }

  fail(error: unknown): void {
    this.errors.push(error)
  }
}

interface WaitingFields extends Partial<Omit<Waiting, 'publication' | 'mode'>> {
  readonly topic?: string
  readonly qos?: 0 | 1 | 2
  readonly retain?: boolean
}

let made = 0

/** A publish that waits, unlike every other one, of 10 bytes and without a deadline where nothing else is said. */
export function waitingPublish(
  mode: WhenBlocked,
  { topic = 't', qos = 0, retain = false, ...fields }: WaitingFields = {},
): Waiting {
  made += 1
  const payload = Buffer.from(String(made))
  return {
    publication: new RecordedPublication(outboundMessage({ topic, payload, qos, retain })),
    mode,
    bytes: 10,
    enteredMs: 0,
    deadlineMs: Number.POSITIVE_INFINITY,
    lateReason: mode === 'drop' ? 'backlog' : 'expired',
    ...fields,
  }
}
