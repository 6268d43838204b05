import { setMaxListeners } from 'node:events'
import type { ConnectionState } from '../../core/connection/connection-state.js'
import { closedError, isMqttError, MqttError } from '../../core/errors.js'
import type { OutboundQueue } from '../../core/outbound/outbound-buffer.js'
import {
  beginWait,
  type GivenUp,
  type OutboundMessage,
  type Publication,
  type PublishTerms,
} from '../../core/outbound/outbound-message.js'
import {
  type DropReason,
  type OutboundCounters,
  OutcomeCount,
  POLICIES,
  type PublishOutcome,
  type WhenBlocked,
} from '../../core/outbound/publish-outcome.js'
import { assertTopicName, UNUSUAL_IN_TOPIC_NAME, USUAL_TOPIC_LENGTH } from '../../core/topic/topic-filter.js'
import type { PublishOptions } from '../../options/client-options.js'
import { type Codec, encodePayload, resolveCodec } from '../../options/codec.js'
import type { OutboundOptions } from '../../options/options.js'
import { parseOptions, publishSchema, requestSchema, tryPublishSchema } from '../../options/schema.js'
import type { MqttConnection } from '../connection/mqtt-connection.js'
import type { ClientEvents, Hook, Notice } from '../events.js'
import { DeadlineTimer, type WaitOptions, waitFor } from '../waits.js'
import type { PacedLink } from './paced-link.js'

export interface WaitingPublishesObserver {
  /** A waiting publish is dropped. */
  dropped(publication: Publication, reason: DropReason): void
  /** Whether a publish that is late waits for acknowledgements, and not for the link. */
  waitsForAcknowledgement(publication: Publication): boolean
}

/** Dependencies of a publisher. */
export interface PublisherParts {
  readonly connection: Pick<MqttConnection, 'terminate'>
  /** On a new connection, subscriptions are sent before the first publish. `flushed` is called when they have been sent. */
  readonly subscriptions: { readonly isRestoring: boolean }
  readonly events: ClientEvents
  /** Publishes the first message of each connection. */
  readonly presence: { greet(): void } | undefined
}

/** Publishes that wait for the link. Their number is limited, and each is dropped at its deadline. */
export class WaitingPublishes {
  private readonly timer = new DeadlineTimer(() => this.dropLate(performance.now()))

  constructor(
    private readonly queue: OutboundQueue,
    private readonly options: Required<OutboundOptions>,
    private readonly observer: WaitingPublishesObserver,
  ) {}

  /** Age of the oldest, in milliseconds. */
  get oldestMs(): number {
    const oldestMs = this.queue.oldestMs()
    return oldestMs === undefined ? 0 : performance.now() - oldestMs
  }

  /** Adds a publish. @returns why it is dropped instead */
  hold(publication: Publication, mode: WhenBlocked, paced: PacedLink | undefined): DropReason | undefined {
    const { queue, options } = this
    beginWait(publication, mode, options, paced?.nowMs ?? performance.now())
    const refused = POLICIES[mode].refuses(paced, queue.bytes + publication.bytes, options)
    if (refused !== undefined) return refused
    const admission = queue.add(publication, paced?.backlogBytes ?? 0)
    if (!admission.isAdmitted) return this.reasonOf(publication, admission.reason)
    for (const [displaced, reason] of admission.displaced) this.observer.dropped(displaced, reason)
    if (publication.deadlineMs < this.timer.dueMs) this.timer.arm(publication.deadlineMs)
    return undefined
  }

  /**
   * Returns the next publish in order that may still be written; without `mayAcknowledge` the next one of QoS 0.
   * @param arrivalMs time at which data written now arrives; the publish must not be too old by then
   */
  next(mayAcknowledge: boolean, arrivalMs: number): Publication | undefined {
    const next = this.queue.next(mayAcknowledge)
    if (next === undefined || next.deadlineMs > arrivalMs) return next
    this.dropLate(arrivalMs)
    return this.queue.next(mayAcknowledge)
  }

  /** Drops all of these. */
  drop(reason: DropReason, picks: (publication: Publication) => boolean): void {
    for (const publication of this.queue.takeAll(picks)) this.observer.dropped(publication, reason)
    if (this.queue.size === 0) this.timer.stop()
  }

  /** Without a connection. */
  readonly dropBacklog = (): void => this.drop('offline', ({ mode }) => !POLICIES[mode].isKept)

  private dropLate(nowMs: number): void {
    for (const publication of this.queue.takeLate(nowMs))
      this.observer.dropped(publication, this.reasonOf(publication, publication.lateReason))
    this.timer.arm(this.queue.nextDeadlineMs)
  }

  /** Missing acknowledgements and a slow link are different causes. */
  private reasonOf(publication: Publication, reason: DropReason): DropReason {
    if (reason !== 'backlog' || !this.observer.waitsForAcknowledgement(publication)) return reason
    return 'in-flight-full'
  }
}

/** Ends a publish when its `timeoutMs` expires or its `signal` is aborted. */
export function watchTerms(
  publication: Publication,
  { timeoutMs, signal }: PublishTerms,
  giveUp: (publication: Publication, reason: GivenUp, cause: MqttError) => void,
): void {
  if (timeoutMs === undefined && signal === undefined) return
  const { topic } = publication.message
  const abort = (): void => {
    const text = `the publish to "${topic}" was aborted before the broker acknowledged it`
    giveUp(publication, 'aborted', new MqttError('ABORTED', text, { cause: signal?.reason }))
  }
  const expire = (): void => {
    const text = `the broker did not acknowledge the publish to "${topic}" within ${timeoutMs} ms`
    giveUp(publication, 'expired', new MqttError('TIMEOUT', text))
  }
  const timer = timeoutMs === undefined ? undefined : setTimeout(expire, timeoutMs)
  if (signal !== undefined) {
    // Many publishes may share one signal, so many listeners are not a leak.
    setMaxListeners(0, signal)
    signal.addEventListener('abort', abort)
  }
  publication.stopWatch = () => {
    clearTimeout(timer)
    signal?.removeEventListener('abort', abort)
  }
}

/**
 * Resolves when a schema has validated, whatever its result.
 * @throws MqttError `TIMEOUT`, `ABORTED`, or `CONNECTION_CLOSED` when the client closes
 */
export function whenValidated(
  connection: Pick<MqttConnection, 'state' | 'attach'>,
  validation: Promise<unknown>,
  what: string,
  wait: WaitOptions,
): Promise<void> {
  return waitFor(`result of the schema of ${what}`, wait, settle => {
    const look = ({ status }: ConnectionState): void => {
      if (status === 'closed') settle(closedError())
    }
    const done = () => settle()
    validation.then(done, done)
    const detach = connection.attach({ stateChanged: look })
    look(connection.state)
    return detach
  })
}

/** Returns why a publish is dropped whose validation was not awaited any longer. */
export function dropReasonOf(error: unknown): DropReason {
  if (isMqttError(error, 'TIMEOUT')) return 'expired'
  return isMqttError(error, 'ABORTED') ? 'aborted' : 'closed'
}

/** The validation counts towards the time limit of a call. */
export function timeLeft<O extends { readonly timeoutMs?: number }>(options: O, startMs: number): O {
  const { timeoutMs } = options
  if (timeoutMs === undefined) return options
  return { ...options, timeoutMs: Math.max(1, Math.ceil(timeoutMs - (performance.now() - startMs))) }
}

/** Drops are over after this time without a drop. */
const CALM_MS = 1_000

/** Counts the outcomes of publishes, and reports those that fail. */
export class Outcomes extends OutcomeCount {
  /** Drops were reported, but not their end. */
  isDropping = false
  private lastDropMs = 0
  /** Publishes with `whenBlocked: 'store'` that have no outcome, and how many of them are in flight. */
  pending = 0
  calling = 0
  /** Messages of the store that are in flight. */
  kept = 0
  /** The last publish that the broker refused. */
  refusal: { readonly atMs: number; readonly reasonCode: number } | undefined

  constructor(private readonly notice: Hook<Notice>) {
    super()
  }

  settle(publication: Publication, outcome: PublishOutcome): void {
    publication.isSettled = true
    if (publication.keeper !== undefined) return publication.keeper.ended(outcome)
    if (outcome.status === 'dropped') {
      this.dropped[outcome.reason] += 1
      this.noteDrop(outcome.reason)
    } else {
      this.ended[outcome.status] += 1
      if (outcome.status === 'refused') this.noteRefusal(publication.message.topic, outcome)
    }
    publication.stopWatch?.()
    publication.resolve(outcome)
  }

  /** The broker refused a publish, or a message of the store. */
  noteRefusal(
    topic: string,
    { reasonCode, reasonString }: Extract<PublishOutcome, { status: 'refused' }>,
  ): void {
    this.refusal = { atMs: performance.now(), reasonCode }
    this.notice.emit({ type: 'publish-refused', topic, reasonCode, reasonString })
  }

  /** A publish is dropped before it waits. */
  dropAtOnce(reason: DropReason): { readonly status: 'dropped'; readonly reason: DropReason } {
    this.droppedAtOnce(reason)
    this.noteDrop(reason)
    return { status: 'dropped', reason }
  }

  /** Nothing waits. Reports the end of drops if there was none for a while. */
  caughtUp(): void {
    if (performance.now() - this.lastDropMs < CALM_MS) return
    this.isDropping = false
    this.notice.emit({ type: 'drops-over' })
  }

  private noteDrop(reason: DropReason): void {
    this.isDropping = true
    this.lastDropMs = performance.now()
    this.notice.emit({ type: 'publish-dropped', reason })
  }
}

interface Sending {
  readonly inFlight: { readonly size: number }
  readonly paced: PacedLink | undefined
  readonly writtenBytes: number
}

export function countersOf(
  outcomes: Outcomes,
  queue: OutboundQueue,
  oldestMs: number,
  { inFlight, paced, writtenBytes }: Sending,
): OutboundCounters {
  return {
    ...outcomes.outcomes,
    storing: outcomes.pending - outcomes.calling,
    inFlight: inFlight.size - outcomes.kept,
    queued: queue.size,
    queuedBytes: queue.bytes,
    bytes: writtenBytes + (paced?.bytes ?? 0),
    unconfirmedBytes: paced?.unconfirmedBytes ?? 0,
    bytesPerSecond: paced?.bytesPerSecond,
    delayMs: paced?.delayMs(queue.bytes) ?? 0,
    oldestMs,
  }
}

/** The values of `publish` and `request` that need no validation. */
export const NO_OPTIONS = {}

const SCHEMAS = { publish: publishSchema, tryPublish: tryPublishSchema, request: requestSchema }

/**
 * Checks and encodes what a caller publishes.
 * @throws MqttError `INVALID_TOPIC_NAME`, `INVALID_OPTION`, `PAYLOAD_NOT_ENCODABLE`
 */
export function outboundMessage(
  topic: string,
  payload: unknown,
  options: PublishOptions,
  kind: 'publish' | 'tryPublish' | 'request',
  usual: Codec,
): OutboundMessage {
  const isShort = typeof topic === 'string' && topic !== '' && topic.length <= USUAL_TOPIC_LENGTH
  if (!isShort || UNUSUAL_IN_TOPIC_NAME.test(topic)) assertTopicName(topic)
  // Skips validation on the hot path.
  const isChecked = options === NO_OPTIONS || (kind !== 'tryPublish' && isCommonPublish(options))
  if (!isChecked) parseOptions(`${kind} to "${topic}"`, SCHEMAS[kind], options)
  const codec = options.codec === undefined ? usual : resolveCodec(options.codec)
  const { qos = 0, retain = false, properties } = options
  const bytes = encodePayload(codec, topic, payload)
  if (properties === undefined) return { topic, payload: bytes, qos, retain }
  return { topic, payload: bytes, qos, retain, properties }
}

/** Whether these options, if any, are the ones that most publishes have, and valid. */
function isCommonPublish(options: { readonly qos?: unknown; readonly retain?: unknown }): boolean {
  if (typeof options !== 'object' || options === null) return false
  for (const key in options) if (key !== 'qos' && key !== 'retain') return false
  const { qos, retain } = options
  const isQoS = qos === undefined || qos === 0 || qos === 1 || qos === 2
  return isQoS && (retain === undefined || typeof retain === 'boolean')
}
