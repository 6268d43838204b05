import {
  type ConnectionEffect,
  type ConnectionEvent,
  type ConnectionMachine,
  type ConnectionRules,
  type ConnectionState,
  newMachine,
  type ProtocolVersion,
  transition,
} from '../../core/connection/connection-state.js'
import { ownVerdict, reconnectDelayMs, verdictOf } from '../../core/connection/reconnect-rules.js'
import { INSECURE_TLS } from '../../core/connection/tls-rules.js'
import { closedError, describeCause, MqttError } from '../../core/errors.js'
import type { BrokerLimits } from '../../core/protocol/packets.js'
import type { AuthenticationExchange } from '../../options/authentication.js'
import type { MqttCredentials } from '../../options/options.js'
import type { ResolvedOptions } from '../../options/resolved-options.js'
import { type WaitOptions, whenConnected } from '../waits.js'
import type { LinkAuthentication } from './authentication.js'
import type { ConnectionListener, Dialler, Endpoint, Link, LinkEvents } from './link.js'

export type { ConnectionListener }

/** How long the broker may take to close a connection after DISCONNECT. */
const CLOSE_MS = 500

type DialEffect = Extract<ConnectionEffect, { type: 'dial' }>

/** Runs the state machine: executes its effects with real timers and links. */
export class MqttConnection {
  private machine: ConnectionMachine
  /** Identifies an attempt that was abandoned while its address was being looked up. */
  private attempt: AbortController | undefined
  private link: Link | undefined
  /** Of the current connection. */
  private authentication: LinkAuthentication | undefined
  /** Until when the credentials of the current connection hold, in milliseconds since 1970. */
  expiresAtMs: number | undefined
  /** Credentials for the next attempt. */
  #prepared: MqttCredentials | undefined
  private timer: NodeJS.Timeout | undefined
  private closeTimer: NodeJS.Timeout | undefined
  private locateTimer: NodeJS.Timeout | undefined
  /** Listeners for the events of the link. Replaced on each change, so that a running notification reaches all of them. */
  private parts: readonly ConnectionListener[] = []
  /** Listeners for changes of the state. There may be many, and they are not called for packets. */
  private readonly observers = new Set<ConnectionListener>()
  private readonly events: ConnectionEvent[] = []
  private readonly rules: ConnectionRules
  /** The connection is closed in such a way that the broker publishes the will. */
  private keepsWill = false

  constructor(
    private readonly options: ResolvedOptions,
    private readonly dialler: Dialler,
    /** Receives errors thrown by listeners, which must not stop the connection. */
    private readonly onListenerError: (error: unknown) => void,
  ) {
    const { delayMs, resetAfterMs, verdict } = options.reconnect
    this.rules = {
      protocolVersion: options.protocolVersion,
      failFast: options.connect === 'fail-fast',
      resetAfterMs,
      targets: options.targets,
      delayMs: (round, cause, previousMs) =>
        reconnectDelayMs(delayMs, round, cause, previousMs, Math.random()),
      verdict: cause => ownVerdict(verdict, cause) ?? verdictOf(cause),
    }
    this.machine = newMachine(this.rules)
  }

  get state(): ConnectionState {
    return this.machine.state
  }

  /** Limits of the broker on the current connection. */
  get limits(): BrokerLimits | undefined {
    return this.state.status === 'connected' ? this.state.session.limits : undefined
  }

  /** Version of the current connection. Without a connection, the version of the next one, as far as it is known. */
  get protocolVersion(): ProtocolVersion {
    return this.link?.protocolVersion ?? this.machine.progress.protocolVersion
  }

  /**
   * Returns the `mqtt` client of the current connection. Each connection has its own client.
   * @throws MqttError `CONNECTION_LOST` without a connection
   */
  unwrap<T>(): T {
    if (this.link === undefined)
      throw new MqttError('CONNECTION_LOST', 'there is no connection, so there is no mqtt client')
    // Seam: the caller names the type, as Nest declares it for `unwrap`.
    return this.link.unwrap() as T
  }

  /** Adds a listener. Those that use the link are called first, in the order of their calls. @returns a function that removes it */
  attach(listener: ConnectionListener): () => void {
    if (!usesLink(listener)) {
      this.observers.add(listener)
      return () => this.observers.delete(listener)
    }
    this.parts = [...this.parts, listener]
    return () => {
      const index = this.parts.indexOf(listener)
      if (index >= 0) this.parts = this.parts.toSpliced(index, 1)
    }
  }

  /** Starts connecting. `fail-fast`: settles with the first round of attempts; `background`: resolves at once. */
  async open(): Promise<void> {
    if (this.options.insecureTls && this.state.status === 'idle') this.warn(INSECURE_TLS)
    this.apply({ type: 'open' })
    if (this.options.connect === 'fail-fast') await this.whenConnected()
  }

  /**
   * Closes the connection. Resolves when it is closed, after `timeoutMs` at the latest.
   * @param keepsWill whether the broker is to publish the will
   */
  close(timeoutMs: number, keepsWill = false): Promise<void> {
    this.keepsWill = keepsWill
    this.apply({ type: 'close' })
    if (this.state.status === 'closed') return Promise.resolve()
    return new Promise(resolve => {
      const timer = setTimeout(() => this.link?.destroy(), timeoutMs)
      const detach = this.attach({
        stateChanged: state => {
          if (state.status !== 'closed') return
          clearTimeout(timer)
          detach()
          resolve()
        },
      })
    })
  }

  /** Ends the current network connection with DISCONNECT and this cause. The client reconnects as after any loss. */
  terminate(cause: MqttError): void {
    this.link?.terminate(cause)
  }

  /** Authenticates again on the current connection. @returns undefined without a connection */
  reauthenticate(exchange: AuthenticationExchange): Promise<void> | undefined {
    const { link, authentication, state } = this
    if (state.status !== 'connected' || link === undefined) return undefined
    return authentication?.again(exchange, link)
  }

  /** Ends the connection with DISCONNECT, and connects again at once, with these credentials if given. */
  replace(credentials?: MqttCredentials): void {
    this.#prepared = credentials ?? this.#prepared
    this.apply({ type: 'replace' })
    clearTimeout(this.closeTimer)
    this.closeTimer = setTimeout(() => this.link?.destroy(), CLOSE_MS)
  }

  whenConnected(wait: WaitOptions = {}): Promise<void> {
    return whenConnected(this, wait)
  }

  /** Events are processed one after the other, including those raised while another one is processed. */
  private apply(event: ConnectionEvent): void {
    this.events.push(event)
    if (this.events.length > 1) return
    for (let next: ConnectionEvent | undefined = event; next !== undefined; next = this.events[0]) {
      const before = this.state
      const { machine, effects } = transition(this.machine, next, this.rules)
      this.machine = machine
      for (const effect of effects) this.perform(effect)
      const { state } = machine
      if (state !== before) this.announce(state, before, next)
      this.events.shift()
    }
  }

  private announce(state: ConnectionState, before: ConnectionState, event: ConnectionEvent): void {
    for (const listener of [...this.parts, ...this.observers]) {
      try {
        this.notify(listener, state, before, event)
      } catch (error) {
        this.onListenerError(error)
      }
    }
  }

  private notify(
    listener: ConnectionListener,
    state: ConnectionState,
    before: ConnectionState,
    event: ConnectionEvent,
  ): void {
    if (event.type === 'lost' && (before.status === 'connected' || before.status === 'closing')) {
      listener.lost?.(event.cause)
    }
    if (state.status === 'connected' && this.link !== undefined)
      listener.connected?.(this.link, state.session)
    listener.stateChanged?.(state, before)
  }

  private perform(effect: ConnectionEffect): void {
    switch (effect.type) {
      case 'dial':
        void this.dial(effect)
        return
      case 'wait':
        this.timer = setTimeout(() => this.apply({ type: 'delay-elapsed' }), effect.delayMs)
        return
      case 'cancel-wait':
        clearTimeout(this.timer)
        return
      case 'disconnect':
        this.link?.disconnect(this.keepsWill)
        return
      case 'abort':
        if (this.link !== undefined) return this.link.destroy()
        this.attempt?.abort()
        this.attempt = undefined
        clearTimeout(this.locateTimer)
        this.lose(closedError())
    }
  }

  private async dial({ target, reference, protocolVersion }: DialEffect): Promise<void> {
    const attempt = new AbortController()
    this.attempt = attempt
    try {
      const prepared = this.#prepared
      this.#prepared = undefined
      const endpoint = await this.withinConnectTimeout(
        this.dialler.locate(target, reference, protocolVersion, prepared, attempt.signal).catch(notLocated),
      )
      if (this.attempt === attempt) this.openLink(endpoint, protocolVersion)
      else endpoint.tunnel?.socket.destroy()
    } catch (cause) {
      attempt.abort()
      if (this.attempt !== attempt) return
      this.lose(new MqttError('CONNECT_FAILED', `could not connect: ${describeCause(cause)}`, { cause }))
    }
  }

  private openLink(endpoint: Endpoint, protocolVersion: ProtocolVersion): void {
    const link: { current?: Link } = {}
    // Ignores a link that is no longer the current one.
    const ifCurrent =
      <A extends unknown[]>(work: (...args: A) => void) =>
      (...args: A): void => {
        if (link.current !== undefined && link.current === this.link) work(...args)
      }
    const events: LinkEvents = {
      connected: ifCurrent(session => this.apply({ type: 'accepted', session, nowMs: performance.now() })),
      responded: ifCurrent(packet => {
        for (const part of this.parts) part.responded?.(packet)
      }),
      closed: ifCurrent(cause => {
        clearTimeout(this.closeTimer)
        this.link = undefined
        this.lose(cause)
      }),
      noticed: cause => {
        for (const listener of [...this.parts, ...this.observers]) listener.noticed?.(cause)
      },
      warned: text => this.warn(text),
    }
    link.current = this.dialler.dial(endpoint, protocolVersion, events)
    this.link = link.current
    this.authentication = endpoint.authentication
    this.expiresAtMs = endpoint.expiresAtMs
  }

  /** Looking up the address is part of the attempt, and must not block it. */
  private withinConnectTimeout<T>(work: Promise<T>): Promise<T> {
    const { connectTimeoutMs } = this.options
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        const text = `credentials, address and proxy were not ready within ${connectTimeoutMs} ms`
        reject(new MqttError('TIMEOUT', text))
      }, connectTimeoutMs)
      this.locateTimer = timer
      work.then(resolve, reject).finally(() => clearTimeout(timer))
    })
  }

  private warn(text: string): void {
    for (const listener of [...this.parts, ...this.observers]) listener.warned?.(text)
  }

  private lose(cause: MqttError): void {
    this.apply({ type: 'lost', cause, nowMs: performance.now() })
  }
}

function usesLink({ connected, responded }: ConnectionListener): boolean {
  return connected !== undefined || responded !== undefined
}

/** Wrapped in an error of its own, so that it is not taken for a broker that rejects MQTT 5 by closing the connection. */
function notLocated(cause: unknown): never {
  throw new Error('the attempt could not be made', { cause: cause ?? 'no reason was given' })
}
