import type { ConnectionState } from './connection/connection-state.js'
import type { SubscriptionCounters } from './connection/subscription-options.js'
import type { InboundCounters } from './inbound/inbound-count.js'
import type { OutboundCounters } from './outbound/outbound-message.js'

/** Counters of one connection since the start of the process. They add up: nothing disappears uncounted. */
export interface MqttStats {
  /** received = handled + deadLettered + dropped + givenBack + repeated + waiting + running */
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

/** Whether the connection does what the application needs of it. */
export interface MqttHealth {
  /**
   * `up`: connected. `degraded`: connected, but the broker refuses a subscription, or has not responded to one or
   * acknowledged the oldest publish for half of `outbound.ackTimeoutMs`.
   */
  readonly status: 'up' | 'degraded' | 'down'
  readonly state: ConnectionState
  /** Filters that the broker refuses. */
  readonly refusedSubscriptions: readonly string[]
  /** Filters to which the broker has not responded for half of `outbound.ackTimeoutMs`: 100 of them at most. */
  readonly unansweredSubscriptions: readonly string[]
  /** The oldest QoS 1 or 2 publish has waited for its acknowledgement for half of `outbound.ackTimeoutMs`. */
  readonly isAcknowledgementLate: boolean
}

export function healthOf(state: ConnectionState, needs: Omit<MqttHealth, 'status' | 'state'>): MqttHealth {
  const { refusedSubscriptions, unansweredSubscriptions, isAcknowledgementLate } = needs
  const isServed =
    refusedSubscriptions.length + unansweredSubscriptions.length === 0 && !isAcknowledgementLate
  const status = state.status !== 'connected' ? 'down' : isServed ? 'up' : 'degraded'
  return { status, state, ...needs }
}
