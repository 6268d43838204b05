import { LEASE, type ReplyTarget } from '../../core/requests/reply-target.js'
import type { PublishPacket } from '../connection/link.js'

const MS = 1_000
const MAX_LEASE_SECONDS = 3_600

interface Lease {
  readonly firstLeaseMs: number | undefined
  readonly leaseMs: number | undefined
}

/**
 * How long a source of responses may go on without a sign of its requester. A request for one response says by its
 * Message Expiry Interval how long it waits; one for a stream says by its lease how often it is renewed, and waits for
 * the first response as long as for one. Others say nothing.
 */
export function leaseOf({ properties }: Pick<PublishPacket, 'properties'>, target: ReplyTarget): Lease {
  if (target.kind === 'nest') return { firstLeaseMs: undefined, leaseMs: undefined }
  const expiry = properties?.messageExpiryInterval
  const expiryMs = expiry === undefined ? undefined : expiry * MS
  if (target.isStream !== true) return { firstLeaseMs: expiryMs, leaseMs: undefined }
  const leaseMs = leaseMsOf(properties?.userProperties?.[LEASE])
  if (leaseMs === undefined) return { firstLeaseMs: undefined, leaseMs: undefined }
  return { firstLeaseMs: Math.max(leaseMs, expiryMs ?? 0), leaseMs }
}

function leaseMsOf(value: string | readonly string[] | undefined): number | undefined {
  const seconds = typeof value === 'string' && /^\d{1,5}$/.test(value) ? Number(value) : 0
  return seconds >= 1 && seconds <= MAX_LEASE_SECONDS ? seconds * MS : undefined
}
