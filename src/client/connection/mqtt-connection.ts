import {
  type ConnectedSession,
  type ConnectionEffect,
  type ConnectionEvent,
  type ConnectionMachine,
  type ConnectionRules,
  type ConnectionState,
  newMachine,
  type ProtocolVersion,
  transition,
} from '../../core/connection/connection-state.js'
import { reconnectDelayMs, verdictOf } from '../../core/connection/reconnect-rules.js'
import { closedError, describeCause, MqttError } from '../../core/errors.js'
import type { BrokerLimits } from '../../core/protocol/packets.js'
import type { Verdict } from '../../options/options.js'
import type { ResolvedOptions } from '../../options/resolved-options.js'
import { type WaitOptions, whenConnected } from '../waits.js'
import type { Dialler, Endpoint, Link, LinkEvents, Packet } from './link.js'

type DialEffect = Extract<ConnectionEffect, { type: 'dial' }>

/** Events of a connection. */
export interface ConnectionListener {
  /** CONNACK with success arrived. `link` is good until `lost`. */
  connected?(link: Link, session: ConnectedSession): void
  /** An established connection is gone. */
  lost?(cause: MqttError): void
  /** SUBACK or UNSUBACK came. */
  responded?(packet: Packet): void
  /** What else went wrong with a connection that is ending already: for the debug log. */
  noticed?(cause: MqttError): void
  stateChanged?(state: ConnectionState, before: ConnectionState): void
}

/** The shell around the state machine: carries out its effects with real timers and real links. */
export class MqttConnection {
  private machine: ConnectionMachine
  /** Tells an attempt that was given up while it was still finding out where to go. */
  private attempt: object | undefined
  private link: Link | undefined
  private timer: NodeJS.Timeout | undefined
  private locateTimer: NodeJS.Timeout | undefined
  /** Listeners for the events of the link. Replaced at each change, so that a running notification reaches all of them. */
  private parts: readonly ConnectionListener[] = []
  /** Those who are told how the connection changes: there may be many, and no packet visits them. */
  private readonly observers = new Set<ConnectionListener>()
  private readonly events: ConnectionEvent[] = []
  private readonly rules: ConnectionRules

  constructor(
    private readonly options: ResolvedOptions,
    private readonly dialler: Dialler,
    /** Takes what a listener throws: it must not stop the connection. */
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

  /** What the broker of the present connection takes. */
  get limits(): BrokerLimits | undefined {
    return this.state.status === 'connected' ? this.state.session.limits : undefined
  }

  /** That of the present connection, and without one that of the next, as far as it is known. */
  get protocolVersion(): ProtocolVersion {
    return this.link?.protocolVersion ?? this.machine.progress.protocolVersion
  }

  /**
   * The client of `mqtt` behind the present connection. It serves this one connection only: the next one has
   * a client of its own.
   * @throws MqttError `CONNECTION_LOST` while there is none
   */
  unwrap<T>(): T {
    if (this.link === undefined)
      throw new MqttError('CONNECTION_LOST', 'there is no client while there is no connection')
    // Seam: the caller names the type, as the contract of Nest's unwrap has it.
    return this.link.unwrap() as T
  }

  /** Those who use the link are told of a change before all others. @returns what ends this */
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

  /** Starts connecting. `fail-fast`: settles with the first attempt; `background`: resolves at once. */
  async open(): Promise<void> {
    this.apply({ type: 'open' })
    if (this.options.connect === 'fail-fast') await this.whenConnected()
  }

  /** Ends the connection; resolves when it is closed, at the latest after `timeoutMs`. */
  close(timeoutMs: number): Promise<void> {
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

  /** Ends the present network connection with DISCONNECT and this cause; it comes back as after any loss. */
  hangUp(cause: MqttError): void {
    this.link?.hangUp(cause)
  }

  whenConnected(wait: WaitOptions = {}): Promise<void> {
    return whenConnected(this, wait)
  }

  /** Events are taken one after the other, also those that arise while one is worked on. */
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
        this.tell(listener, state, before, event)
      } catch (error) {
        this.onListenerError(error)
      }
    }
  }

  private tell(
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
        this.link?.disconnect()
        return
      case 'abort':
        if (this.link !== undefined) return this.link.destroy()
        this.attempt = undefined
        clearTimeout(this.locateTimer)
        this.lose(closedError())
    }
  }

  private async dial({ target, reference, protocolVersion }: DialEffect): Promise<void> {
    const attempt = {}
    this.attempt = attempt
    try {
      const endpoint = await this.withinConnectTimeout(
        this.dialler.locate(target, reference, protocolVersion).catch(notLocated),
      )
      if (this.attempt === attempt) this.openLink(endpoint, protocolVersion)
    } catch (cause) {
      if (this.attempt !== attempt) return
      this.lose(new MqttError('CONNECT_FAILED', `could not connect: ${describeCause(cause)}`, { cause }))
    }
  }

  private openLink(endpoint: Endpoint, protocolVersion: ProtocolVersion): void {
    const link: { current?: Link } = {}
    // A link that is not the current one any more has nothing to say.
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
        this.link = undefined
        this.lose(cause)
      }),
      noticed: cause => {
        for (const listener of [...this.parts, ...this.observers]) listener.noticed?.(cause)
      },
    }
    link.current = this.dialler.dial(endpoint, protocolVersion, events)
    this.link = link.current
  }

  /** Finding out where to go is a part of the attempt, and must not hang it. */
  private withinConnectTimeout<T>(work: Promise<T>): Promise<T> {
    const { connectTimeoutMs } = this.options
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(new MqttError('TIMEOUT', `no credentials or address within ${connectTimeoutMs} ms`))
      }, connectTimeoutMs)
      this.locateTimer = timer
      work.then(resolve, reject).finally(() => clearTimeout(timer))
    })
  }

  private lose(cause: MqttError): void {
    this.apply({ type: 'lost', cause, nowMs: performance.now() })
  }
}

function usesLink({ connected, responded }: ConnectionListener): boolean {
  return connected !== undefined || responded !== undefined
}

const VERDICTS: readonly Verdict[] = ['retry', 'retry-with-fresh-credentials', 'go-elsewhere', 'stop']

/** The application's own rule must not be able to end the reconnecting by throwing. */
function ownVerdict(
  verdict: ((cause: MqttError) => Verdict | undefined) | undefined,
  cause: MqttError,
): Verdict | undefined {
  try {
    const own = verdict?.(cause)
    return own !== undefined && VERDICTS.includes(own) ? own : undefined
  } catch {
    return undefined
  }
}

/** A cause of its own, which cannot be taken for a broker that hung up. */
function notLocated(cause: unknown): never {
  throw new Error('the attempt could not be made', { cause: cause ?? 'no reason was given' })
}
