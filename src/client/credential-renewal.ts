import {
  authenticationFailed,
  mayReplace,
  renewalDelayMs,
  renewalRetryMs,
} from '../core/connection/authentication.js'
import { describeCause, isMqttError, MqttError } from '../core/errors.js'
import { counted, type SessionLog } from '../core/log-lines.js'
import type { MqttCredentials } from '../options/options.js'
import type { ResolvedOptions } from '../options/resolved-options.js'
import { invalidOption } from '../options/schema.js'
import { requestCredentials } from './connection/authentication.js'
import type { ConnectionListener, MqttConnection } from './connection/mqtt-connection.js'
import type { ClientEvents } from './events.js'
import type { InboundDispatcher } from './inbound/inbound-dispatcher.js'
import type { Publisher } from './outbound/publisher.js'
import type { Shutdown } from './shutdown.js'
import { limited } from './waits.js'

/** The parts of a session that a renewal of its credentials needs. */
interface RenewedSession {
  readonly options: ResolvedOptions
  readonly connection: MqttConnection
  readonly publisher: Publisher
  readonly dispatcher: InboundDispatcher
  readonly shutdown: Shutdown
  readonly events: ClientEvents
  readonly log: SessionLog
}

/** Node fires timers with a longer delay at once. */
const LONGEST_TIMER_MS = 86_400_000
/** How long publishes in flight may take to settle before the connection is replaced. */
const SETTLE_MS = 500
const LOOK_MS = 5

/** Renews the credentials of an established connection before they expire. */
export class CredentialRenewal implements ConnectionListener {
  private running: Promise<void> | undefined
  private timer: NodeJS.Timeout | undefined
  /** When the credentials expire and are renewed, in milliseconds since 1970. */
  private expiresAtMs = Number.POSITIVE_INFINITY
  private dueAtMs = Number.POSITIVE_INFINITY
  private failures = 0
  /** Refers back to this object. Private (`#`), so that `util.inspect` does not repeat the session at every level. */
  readonly #session: RenewedSession

  constructor(session: RenewedSession) {
    this.#session = session
  }

  connected(): void {
    this.renewed(this.#session.connection.expiresAtMs)
  }

  lost(): void {
    clearTimeout(this.timer)
  }

  /**
   * Requests new credentials and authenticates again with them. Calls during a re-authentication share its result.
   * @throws MqttError `INVALID_OPTION`, `CONNECTION_LOST`, `AUTHENTICATION_FAILED`
   */
  reauthenticate(): Promise<void> {
    this.running ??= this.authenticateAgain().finally(() => {
      this.running = undefined
    })
    return this.running
  }

  private async authenticateAgain(): Promise<void> {
    const { connection, options } = this.#session
    const { authentication } = options
    if (authentication === undefined)
      throw invalidOption(
        'reauthenticate',
        'this client does not use enhanced authentication; set "authentication"',
      )
    const { exchange, expiresAtMs } = await this.within(async () => {
      const credentials = await this.request()
      const start = { credentials, isReauthentication: true }
      return { exchange: await authentication.start(start), expiresAtMs: credentials.expiresAtMs }
    })
    const again = connection.reauthenticate(exchange)
    if (again === undefined)
      throw new MqttError('CONNECTION_LOST', 'there is no connection to authenticate again')
    await again.catch((cause: unknown) => {
      throw isMqttError(cause) ? cause : authenticationFailed(describeCause(cause), { cause })
    })
    this.#session.log.debug('authenticated again with new credentials')
    this.renewed(expiresAtMs)
  }

  /** The connection uses new credentials. */
  private renewed(expiresAtMs = Number.POSITIVE_INFINITY): void {
    this.failures = 0
    this.expiresAtMs = expiresAtMs
    const nowMs = Date.now()
    // Credentials that have expired already, or a wrong clock, must not lead to a renewal after each connection.
    if (expiresAtMs <= nowMs) this.failed(new Error('"expiresAtMs" is in the past'))
    else this.wait(renewalDelayMs(expiresAtMs - nowMs, Math.random()))
  }

  private wait(delayMs: number): void {
    this.dueAtMs = Date.now() + delayMs
    this.look()
  }

  private readonly look = (): void => {
    clearTimeout(this.timer)
    const leftMs = this.dueAtMs - Date.now()
    if (leftMs === Number.POSITIVE_INFINITY) return
    if (leftMs > 0) this.timer = setTimeout(this.look, Math.min(LONGEST_TIMER_MS, leftMs))
    else if (!this.#session.shutdown.isDraining) void this.renew()
  }

  private async renew(): Promise<void> {
    const { connection, options } = this.#session
    const { state } = connection
    try {
      await (options.authentication === undefined ? this.replace() : this.reauthenticate())
    } catch (cause) {
      // The end of the connection is logged by itself.
      if (connection.state === state) this.failed(cause)
    }
  }

  /** Requests new credentials, and replaces the connection when nothing is in flight. */
  private async replace(): Promise<void> {
    const { connection, publisher, dispatcher, options, shutdown, log } = this.#session
    const { state } = connection
    const credentials = await this.within(() => this.request())
    if (connection.state !== state || shutdown.isDraining) return
    publisher.replacing(true)
    await this.settled()
    if (connection.state !== state) return
    const { size } = publisher.inFlight
    if (shutdown.isDraining || !mayReplace(size, options.keepsSession, this.expiresAtMs - Date.now())) {
      publisher.replacing(false)
      throw new Error(
        `the connection cannot be replaced, because the broker has not acknowledged ${counted(size, 'publish', 'publishes')}`,
      )
    }
    log.debug('replacing the connection, to use new credentials')
    connection.replace(credentials)
    // An acknowledgement after DISCONNECT would not arrive, and the message would be handled again.
    dispatcher.lost()
  }

  /** Replaces the connection, so that the broker delivers again what was not acknowledged. Never rejects. */
  async reconnect(): Promise<void> {
    const { connection, publisher, dispatcher, shutdown, log } = this.#session
    const { state } = connection
    publisher.replacing(true)
    await this.settled()
    if (connection.state !== state) return
    if (shutdown.isDraining) return publisher.replacing(false)
    log.debug('replacing the connection, so that the broker delivers unacknowledged messages again')
    connection.replace()
    dispatcher.lost()
  }

  private async settled(): Promise<void> {
    const { inFlight } = this.#session.publisher
    const untilMs = performance.now() + SETTLE_MS
    while (inFlight.size > 0 && performance.now() < untilMs)
      await new Promise(resolve => setTimeout(resolve, LOOK_MS))
  }

  private async request(): Promise<MqttCredentials> {
    const credentials = await requestCredentials(this.#session.options)
    const { expiresAtMs = Number.POSITIVE_INFINITY } = credentials
    if (expiresAtMs > Date.now()) return credentials
    throw new Error('"expiresAtMs" of the new credentials is in the past')
  }

  /** The functions of the application must not block a renewal for ever. */
  private async within<T>(work: () => Promise<T>): Promise<T> {
    const { connectTimeoutMs } = this.#session.options
    try {
      return await limited(work(), 'the request for new credentials', connectTimeoutMs)
    } catch (cause) {
      throw authenticationFailed(`there are no new credentials: ${describeCause(cause)}`, { cause })
    }
  }

  private failed(cause: unknown): void {
    this.failures += 1
    this.#session.events.notice.emit({ type: 'credentials-not-renewed', why: describeCause(cause) })
    this.wait(renewalRetryMs(this.failures, this.expiresAtMs - Date.now(), Math.random()))
  }
}
