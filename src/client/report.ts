import type { ConnectionState, ProtocolVersion } from '../core/connection/connection-state.js'
import type { InboundCounters } from '../core/inbound/inbound-count.js'
import { counted, type HeldUp, INTENDED, type Notice, oneLine, RecentCount } from '../core/log-lines.js'
import type { OutboundCounters } from '../core/outbound/publish-outcome.js'
import { describeReasonCode } from '../core/protocol/packets.js'
import type { SubscriptionCounters } from '../core/subscriptions/subscription-rules.js'

/** Counters of the store since the start: stored = delivered + evicted + expired + refused + setAside + messages. */
export interface StoreStats {
  /** Messages that wait to be delivered. */
  readonly messages: number
  /** Their size, as the limits of the store count it. */
  readonly bytes: number
  /** How full the store is, from 0 to 1. */
  readonly fullness: number
  /** Age of the oldest, in milliseconds. */
  readonly oldestMs: number
  /** Messages that were stored, including those that were in the store at the start. */
  readonly stored: number
  /** Acknowledged by the broker. */
  readonly delivered: number
  /** Removed for newer ones, because a limit of the store was reached. */
  readonly evicted: number
  /** Removed, because they waited longer than allowed. */
  readonly expired: number
  /** Refused by the broker. */
  readonly refused: number
  /** Set aside, because their record is damaged. */
  readonly setAside: number
  /** Calls of the store that failed. */
  readonly failedWrites: number
}

/** Counters of one client since its start. Every message is counted exactly once. */
export interface MqttStats {
  /**
   * received = handled + deadLettered + dropped + givenBack + repeated + duplicates + waiting + running. A QoS 2 message is `unreleased`
   * before it is received.
   */
  readonly inbound: InboundCounters
  /** attempted = sent + acknowledged + refused + lost + stored + inFlight + queued + storing + every reason of dropped */
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
  /** Caches of `retained()` that are open: their number, topics and bytes, and the values that their limits have dropped. */
  readonly retained: {
    readonly caches: number
    readonly topics: number
    readonly bytes: number
    readonly dropped: number
  }
  /** The store of messages; undefined without one. */
  readonly store: StoreStats | undefined
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

/** Without a requester. */
export const NO_REQUESTS: MqttStats['requests'] = {
  open: 0,
  unexpectedResponses: 0,
  refusedResponseTopics: 0,
  openStreams: 0,
  abandonedStreams: 0,
  evictedStreams: 0,
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
  /** Messages that were dropped in the last minute, in steps of 5 s. */
  readonly droppedInLastMinute: {
    /** Received messages, dropped by the limits of `inbound` or of a loop. */
    readonly inbound: number
    /** Publishes with the outcome `dropped`, except the reasons that the application causes: `superseded`, `aborted` and `closed`. */
    readonly outbound: number
  }
  /**
   * Whether the client has been connected with every subscription granted, at least once since its start. A refused
   * subscription counts as granted with `refusedSubscription: 'warn'`.
   */
  readonly hasStarted: boolean
  /** Whether the client drains or is closed, and accepts no new messages. */
  readonly isDraining: boolean
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
  /** Set while an incoming message holds back the acknowledgements of others. */
  readonly heldUp: HeldUp | undefined
  readonly dropped: MqttHealth['droppedInLastMinute']
  /** The problems of the store. */
  readonly storeProblems: readonly string[]
  readonly hasStarted: boolean
  readonly isDraining: boolean
}

/** A publish that was refused longer ago does not affect the health. */
const RECENT_MS = 60_000

/** Computes the health of a session, with one reason per problem. */
export function healthOf(facts: HealthFacts): MqttHealth {
  const { connection, refusedSubscriptions, unansweredSubscriptions } = facts
  const down = connection.status === 'connected' ? [] : [describeConnection(connection)]
  const degraded = [...subscriptionProblems(facts), ...messageProblems(facts), ...facts.storeProblems]
  const connected = degraded.length === 0 ? 'up' : 'degraded'
  return {
    state: down.length === 0 ? connected : 'down',
    connection,
    reasons: [...down, ...degraded],
    refusedSubscriptions,
    unansweredSubscriptions,
    droppedInLastMinute: facts.dropped,
    hasStarted: facts.hasStarted,
    isDraining: facts.isDraining,
  }
}

function subscriptionProblems({
  refusedSubscriptions: refused,
  unansweredSubscriptions,
}: HealthFacts): string[] {
  const problems: string[] = []
  if (refused.length > 0)
    problems.push(`the broker refuses subscriptions (${refused.length}): ${listOf(refused)}`)
  if (unansweredSubscriptions.length > 0)
    problems.push(
      `the broker has not responded to subscriptions (${unansweredSubscriptions.length}): ${listOf(unansweredSubscriptions)}`,
    )
  return problems
}

function messageProblems({ refusedPublish, isAcknowledgementLate, heldUp, dropped }: HealthFacts): string[] {
  const problems: string[] = []
  if (refusedPublish !== undefined && refusedPublish.ageMs <= RECENT_MS)
    problems.push(
      `the broker refused publishes in the last minute: ${describeReasonCode(refusedPublish.reasonCode)}`,
    )
  if (isAcknowledgementLate)
    problems.push('the broker has not acknowledged a publish for half of outbound.ackTimeoutMs')
  if (heldUp !== undefined)
    problems.push(
      `the handler of ${listOf(heldUp.patterns)} holds back the acknowledgements of ${counted(heldUp.behind, 'message')}`,
    )
  if (dropped.outbound > 0) problems.push(`publishes dropped in the last minute: ${dropped.outbound}`)
  if (dropped.inbound > 0) problems.push(`received messages dropped in the last minute: ${dropped.inbound}`)
  return problems
}

/** Age of a stored message from which it is a problem. */
const OLD_MS = 900_000
const NEARLY_FULL = 0.8

/** @param isFailing whether a call of the store has failed recently */
export function storeProblems({ oldestMs, fullness, messages }: StoreStats, isFailing: boolean): string[] {
  const problems: string[] = []
  if (isFailing) problems.push('the message store failed in the last minute')
  if (fullness >= NEARLY_FULL)
    problems.push(`the store is ${Math.floor(fullness * 100)} % full: ${messages} messages`)
  if (oldestMs >= OLD_MS)
    problems.push(`the oldest stored message has waited for ${Math.floor(oldestMs / 60_000)} minutes`)
  return problems
}

/** Counts the drops of the last minute, from the notices of a client. */
export class RecentDrops {
  private inbound: RecentCount | undefined
  private outbound: RecentCount | undefined

  readonly note = (notice: Notice): void => {
    if (notice.type === 'inbound-dropped') {
      this.inbound ??= new RecentCount(RECENT_MS)
      this.inbound.happened(performance.now())
    } else if (notice.type === 'publish-dropped' && !INTENDED.has(notice.reason)) {
      this.outbound ??= new RecentCount(RECENT_MS)
      this.outbound.happened(performance.now())
    }
  }

  get counts(): MqttHealth['droppedInLastMinute'] {
    const nowMs = performance.now()
    return { inbound: this.inbound?.within(nowMs) ?? 0, outbound: this.outbound?.within(nowMs) ?? 0 }
  }
}

function describeConnection(connection: ConnectionState): string {
  const cause = 'cause' in connection ? connection.cause : undefined
  const what = `the connection is ${connection.status}`
  return cause === undefined ? what : `${what}: ${cause.message}`
}

const MOST_NAMED = 3

function listOf(names: readonly string[]): string {
  const named = names.slice(0, MOST_NAMED).map(oneLine).join(', ')
  return names.length > MOST_NAMED ? `${named}, …` : named
}

interface ObservedSession {
  readonly options: { readonly clientId: string; readonly inbound: { readonly concurrency: number } }
  readonly connection: { readonly state: ConnectionState; readonly protocolVersion: ProtocolVersion }
  readonly dispatcher: { readonly pool: { readonly slotsInUse: number } }
  readonly stats: MqttStats
}

/** A session as events show it. */
export class ClientView {
  /** Private (`#`), because the session holds secrets. */
  readonly #session: ObservedSession
  #broker: string | undefined

  constructor(session: ObservedSession) {
    this.#session = session
  }

  get clientId(): string {
    return this.#session.options.clientId
  }

  get state(): ConnectionState {
    return this.#session.connection.state
  }

  get protocolVersion(): ProtocolVersion {
    return this.#session.connection.protocolVersion
  }

  get broker(): string | undefined {
    const { state } = this
    if (state.status === 'connected') this.#broker = state.session.broker
    return this.#broker
  }

  get handlerSlots() {
    const { dispatcher, options } = this.#session
    return { inUse: dispatcher.pool.slotsInUse, limit: options.inbound.concurrency }
  }

  stats(): MqttStats {
    return this.#session.stats
  }
}
