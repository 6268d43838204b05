import type { OutboundMessage, Publication, PublishTerms, Waiting } from './outbound-message.js'
import { POLICIES, type WaitLimits } from './when-blocked.js'

const MS = 1_000
const FIXED_BYTES = 8

/** How a publish waits, and until when. */
export function waitingOf(
  publication: Publication,
  terms: PublishTerms,
  options: WaitLimits,
  nowMs: number,
): Waiting {
  const { message } = publication
  const mode = terms.whenBlocked ?? options.whenBlocked
  const policy = POLICIES[mode]
  const ownMs = policy.maxWaitMs(options)
  const { messageExpiryInterval } = message.properties ?? {}
  const expiryMs = messageExpiryInterval === undefined ? Infinity : messageExpiryInterval * MS
  return {
    publication,
    mode,
    bytes: weightOf(message),
    enteredMs: nowMs,
    deadlineMs: nowMs + Math.min(ownMs, expiryMs),
    lateReason: ownMs <= expiryMs ? policy.lateReason : 'expired',
  }
}

/** The message as it is written after its wait: what it has left of its lifetime (MQTT 5, 3.3.2.3.3). */
export function messageAt({ publication: { message }, enteredMs }: Waiting, nowMs: number): OutboundMessage {
  const { messageExpiryInterval } = message.properties ?? {}
  const waitedSeconds = Math.floor((nowMs - enteredMs) / MS)
  if (messageExpiryInterval === undefined || waitedSeconds === 0) return message
  const left = Math.max(1, messageExpiryInterval - waitedSeconds)
  return { ...message, properties: { ...message.properties, messageExpiryInterval: left } }
}

/** Bytes of a message in memory, and nearly those of its packet. */
export function weightOf({ topic, payload, properties }: OutboundMessage): number {
  const bytes = FIXED_BYTES + topic.length + payload.length
  return properties === undefined ? bytes : bytes + weightOfValue(properties)
}

function weightOfValue(value: unknown): number {
  if (typeof value === 'string' || Buffer.isBuffer(value)) return value.length
  if (typeof value !== 'object' || value === null) return FIXED_BYTES
  let bytes = 0
  for (const [name, part] of Object.entries(value)) bytes += name.length + weightOfValue(part)
  return bytes
}
