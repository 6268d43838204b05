import type { ConnectionState } from '../core/connection/connection-state.js'
import type { InboundCounters } from '../core/inbound/inbound-count.js'
import type { OutboundCounters } from '../core/outbound/outbound-message.js'
import type { SubscriptionCounters } from '../core/subscriptions/subscription-rules.js'

/** Counters of one connection since the start of the process. They add up: nothing disappears uncounted. */
export interface MqttStats {
  /**
   * received = handled + deadLettered + dropped + givenBack + repeated + waiting + running. A QoS 2 message is `unreleased`
   * before it is received.
   */
  readonly inbound: InboundCounters
  /** attempted = sent + acknowledged + refused + lost + inFlight + queued + every reason of dropped */
  readonly outbound: OutboundCounters
  readonly requests: {
    /** Requests of this connection that wait for an answer. */
    readonly open: number
    /** Answers that nobody waited for: late ones, and second ones. */
    readonly unexpectedResponses: number
    /** Requests to this connection that are not answered, for where the answer was to go. */
    readonly refusedResponseTopics: number
    /** Responses that this connection goes on to give after a handler has returned an Observable or an async iterable. */
    readonly openStreams: number
    /** Of these, how many ended because their requester was gone. */
    readonly abandonedStreams: number
    /** How many were ended to make room, since `requests.maxStreams` were open. */
    readonly evictedStreams: number
  }
  readonly subscriptions: SubscriptionCounters
  readonly connection: {
    /** Connections that the broker accepted. */
    readonly connects: number
    /** Connections that have ended other than by `close`. */
    readonly losses: number
    /**
     * Of these, how many this package gave up because the broker sent no acknowledgement in time
     * (`outbound.ackTimeoutMs`).
     */
    readonly ackTimeouts: number
    /** Connections at which the broker had forgotten a session that it was to keep. */
    readonly sessionsLost: number
  }
}

/**
 * Whether the connection does what the application needs of it. It can be handed to an indicator of
 * `@nestjs/terminus`, which keeps `status` for itself, and to `JSON.stringify`. A type and no interface, since
 * interfaces do not fit a `Record`.
 */
export type MqttHealth = {
  /**
   * `up`: connected, and every subscription granted. `degraded`: connected, and the broker refuses or
   * withholds what `reasons` says.
   * `down`: not connected.
   */
  readonly state: 'up' | 'degraded' | 'down'
  readonly connection: ConnectionState
  /** Why it is not `up`, in words. */
  readonly reasons: readonly string[]
  /** Filters that the broker refuses. */
  readonly refusedSubscriptions: readonly string[]
  /** Filters to which the broker has not responded for half of `outbound.ackTimeoutMs`: 100 of them at most. */
  readonly unansweredSubscriptions: readonly string[]
}

/** A publish that the broker refused. */
export interface RefusedPublish {
  /** Reason Code, by number and name. */
  readonly reason: string
  readonly ageMs: number
}

export interface HealthFacts {
  readonly connection: ConnectionState
  readonly refusedSubscriptions: readonly string[]
  readonly unansweredSubscriptions: readonly string[]
  /** The last one. */
  readonly refusedPublish: RefusedPublish | undefined
  /** The oldest QoS 1 or 2 publish has waited for its acknowledgement for half of `outbound.ackTimeoutMs`. */
  readonly isAcknowledgementLate: boolean
}

/** A publish that was refused longer ago says nothing of now. */
const RECENT_MS = 60_000

/** What is told of the health of a session. Each thing that can go wrong is one reason. */
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
    degraded.push(`the broker refused publishes in the last minute: ${refusedPublish.reason}`)
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
