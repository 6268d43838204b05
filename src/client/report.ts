import type { ConnectionState } from '../core/connection/connection-state.js'
import type { InboundCounters } from '../core/inbound/inbound-count.js'
import type { OutboundCounters } from '../core/outbound/publish-outcome.js'
import { describeReasonCode } from '../core/protocol/packets.js'
import type { SubscriptionCounters } from '../core/subscriptions/subscription-rules.js'

/** Counters of one client since its start. Every message is counted exactly once. */
export interface MqttStats {
  /**
   * received = handled + deadLettered + dropped + givenBack + repeated + waiting + running. A QoS 2 message is `unreleased`
   * before it is received.
   */
  readonly inbound: InboundCounters
  /** attempted = sent + acknowledged + refused + lost + inFlight + queued + every reason of dropped */
  readonly outbound: OutboundCounters
  readonly requests: {
    /** Open requests of this client. */
    readonly open: number
    /** Responses without an open request, such as late or repeated ones. */
    readonly unexpectedResponses: number
    /** Received requests without a response, because their Response Topic is not allowed. */
    readonly refusedResponseTopics: number
    /** Open streams of responses from handlers that returned an Observable or an async iterable. */
    readonly openStreams: number
    /** Streams that ended because their requester was gone. */
    readonly abandonedStreams: number
    /** Streams that were ended to make room (`requests.maxStreams`). */
    readonly evictedStreams: number
  }
  readonly subscriptions: SubscriptionCounters
  readonly connection: {
    /** Connections that the broker accepted. */
    readonly connects: number
    /** Connections that ended without `close()`. */
    readonly losses: number
    /**
     * Losses caused by a missing acknowledgement (`outbound.ackTimeoutMs`).
     */
    readonly ackTimeouts: number
    /** Connections on which the broker had lost the persistent session. */
    readonly sessionsLost: number
  }
}

/**
 * Health of a client. You can pass it to an indicator of `@nestjs/terminus` and to `JSON.stringify`. A type alias, because an
 * interface is not assignable to a `Record`.
 */
export type MqttHealth = {
  /**
   * `up`: connected, with all subscriptions granted. `degraded`: connected, with the problems in `reasons`. `down`: not
   * connected.
   */
  readonly state: 'up' | 'degraded' | 'down'
  readonly connection: ConnectionState
  /** Why the state is not `up`. */
  readonly reasons: readonly string[]
  /** Filters that the broker refuses. */
  readonly refusedSubscriptions: readonly string[]
  /** Filters without a response from the broker for half of `outbound.ackTimeoutMs`, at most 100. */
  readonly unansweredSubscriptions: readonly string[]
}

/** A publish that the broker refused. */
interface RefusedPublish {
  readonly reasonCode: number
  readonly ageMs: number
}

export interface HealthFacts {
  readonly connection: ConnectionState
  readonly refusedSubscriptions: readonly string[]
  readonly unansweredSubscriptions: readonly string[]
  /** The most recent one. */
  readonly refusedPublish: RefusedPublish | undefined
  /** The oldest QoS 1 or 2 publish has waited for its acknowledgement for half of `outbound.ackTimeoutMs`. */
  readonly isAcknowledgementLate: boolean
}

/** A publish that was refused longer ago does not affect the health. */
const RECENT_MS = 60_000

/** Computes the health of a session, with one reason per problem. */
export function healthOf(facts: HealthFacts): MqttHealth {
  const { connection, refusedSubscriptions, unansweredSubscriptions, refusedPublish, isAcknowledgementLate } =
    facts
  const down = connection.status === 'connected' ? [] : [describeConnection(connection)]
  const degraded: string[] = []
  if (refusedSubscriptions.length > 0)
    degraded.push(
      `the broker refuses ${refusedSubscriptions.length} subscriptions: ${listOf(refusedSubscriptions)}`,
    )
  if (unansweredSubscriptions.length > 0)
    degraded.push(
      `the broker has not responded to ${unansweredSubscriptions.length} subscriptions: ${listOf(unansweredSubscriptions)}`,
    )
  if (refusedPublish !== undefined && refusedPublish.ageMs <= RECENT_MS)
    degraded.push(
      `the broker refused publishes in the last minute: ${describeReasonCode(refusedPublish.reasonCode)}`,
    )
  if (isAcknowledgementLate)
    degraded.push('the broker has not acknowledged a publish for half of outbound.ackTimeoutMs')
  const connected = degraded.length === 0 ? 'up' : 'degraded'
  return {
    state: down.length === 0 ? connected : 'down',
    connection,
    reasons: [...down, ...degraded],
    refusedSubscriptions,
    unansweredSubscriptions,
  }
}

function describeConnection(connection: ConnectionState): string {
  const cause = 'cause' in connection ? connection.cause : undefined
  const what = `the connection is ${connection.status}`
  return cause === undefined ? what : `${what}: ${cause.message}`
}

const MOST_NAMED = 3

function listOf(names: readonly string[]): string {
  const named = names.slice(0, MOST_NAMED).join(', ')
  return names.length > MOST_NAMED ? `${named}, …` : named
}
