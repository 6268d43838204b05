import { setMaxListeners } from 'node:events'
import type { ConnectionState } from '../core/connection/connection-state.js'
import { mayRecover } from '../core/connection/tls-rules.js'
import { closedError, isMqttError, MqttError } from '../core/errors.js'
import { counted } from '../core/log-lines.js'
import { PendingChanges } from '../core/subscriptions/retained-values.js'

/** Limits of a wait. */
export interface WaitOptions {
  /** Ends the wait with `ABORTED`. @default none */
  readonly signal?: AbortSignal
  /** Ends the wait with `TIMEOUT` after this time, in milliseconds. More than 24 days: no limit. @default no limit */
  readonly timeoutMs?: number
}

interface Observed {
  readonly state: ConnectionState
  attach(listener: { stateChanged(state: ConnectionState): void }): () => void
}

type Settle = (failure?: MqttError) => void

/** Resolves when there is a connection. Rejects if there will be none, or not in time. */
export function whenConnected(connection: Observed, wait: WaitOptions): Promise<void> {
  return waitFor('connection', wait, settle => {
    const look = (state: ConnectionState): void => {
      if (state.status === 'connected') settle()
      else if (state.status === 'closed') settle(state.cause ?? closedError())
    }
    const detach = connection.attach({ stateChanged: look })
    look(connection.state)
    return detach
  })
}

/**
 * A wait with optional limits, which removes its timer and listener when it ends.
 * @param what what is waited for, named in errors
 * @param begin starts the wait, and may call `settle` at once. @returns a function that ends it
 */
export function waitFor(
  what: string,
  { signal, timeoutMs }: WaitOptions,
  begin: (settle: Settle) => () => void,
): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(abortedError(what, signal))
    let timer: NodeJS.Timeout | undefined
    let isSettled = false
    let end: (() => void) | undefined
    const settle: Settle = failure => {
      if (isSettled) return
      isSettled = true
      clearTimeout(timer)
      signal?.removeEventListener('abort', abort)
      end?.()
      if (failure === undefined) resolve()
      else reject(failure)
    }
    const abort = (): void => settle(abortedError(what, signal))
    // Many waits may share one signal, so many listeners are not a leak.
    if (signal !== undefined) setMaxListeners(0, signal)
    signal?.addEventListener('abort', abort)
    if (timeoutMs !== undefined && timeoutMs <= MAX_TIMER_MS)
      timer = setTimeout(() => settle(timeoutError(what, timeoutMs)), timeoutMs)
    end = begin(settle)
    if (isSettled) end()
  })
}

/** A closed client cannot be used again. */
export function hasClosed(cause?: MqttError): MqttError {
  const text = 'this client is closed and cannot be used again; create a new one to connect again'
  return new MqttError('CONNECTION_CLOSED', text, cause === undefined ? {} : { cause })
}

function abortedError(what: string, signal: AbortSignal | undefined): MqttError {
  return new MqttError('ABORTED', `the wait for the ${what} was aborted`, { cause: signal?.reason })
}

function timeoutError(what: string, timeoutMs: number): MqttError {
  return new MqttError('TIMEOUT', `there was no ${what} within ${timeoutMs} ms`)
}

/** Resolves when the broker has responded to every SUBSCRIBE, or with the error if it does not. */
export function whenSubscribed(
  connection: { attach(listener: { lost(cause: MqttError): void }): () => void },
  subscriptions: { readonly counts: { readonly pending: number }; whenSettled(): Promise<void> },
  timeoutMs: number,
): Promise<MqttError | undefined> {
  return new Promise(resolve => {
    const settle = (failure: MqttError | undefined): void => {
      clearTimeout(timer)
      detach()
      resolve(failure)
    }
    // Some brokers close the connection on a subscription that they do not allow, and some send nothing.
    const detach = connection.attach({ lost: settle })
    const timer = setTimeout(() => {
      const { pending } = subscriptions.counts
      settle(
        new MqttError(
          'TIMEOUT',
          `the broker did not respond to ${counted(pending, 'subscription')} within ${timeoutMs} ms`,
        ),
      )
    }, timeoutMs)
    void subscriptions.whenSettled().then(() => settle(undefined))
  })
}

/** Time limit for closing the store of a client that has not started, in milliseconds. */
const CLOSE_STORE_MS = 5_000

/** Throws the error of a start with `fail-fast`. If waiting for the broker may be enough, the error says how. */
export async function failStart(
  error: unknown,
  store?: { close(timeoutMs: number): Promise<void> },
): Promise<never> {
  // Another client may open it after the failure.
  await store?.close(CLOSE_STORE_MS)
  const isOfAttempt = isMqttError(error, 'CONNECT_FAILED') || isMqttError(error, 'CONNECT_REFUSED')
  if (!isOfAttempt || !mayRecover(error)) throw error
  const { code, message, cause, reasonCode, serverReference } = error
  throw new MqttError(
    code,
    `${message}. Set connect: 'background' to start without a broker and connect later`,
    {
      cause,
      ...(reasonCode === undefined ? {} : { reasonCode }),
      ...(serverReference === undefined ? {} : { serverReference }),
    },
  )
}

/** Returns whether `work` settled within `timeoutMs`. Its result and its error are ignored here. */
export function settlesWithin(work: Promise<unknown>, timeoutMs: number): Promise<boolean> {
  return new Promise(resolve => {
    const timer = setTimeout(() => resolve(false), timeoutMs)
    const settled = () => {
      clearTimeout(timer)
      resolve(true)
    }
    work.then(settled, settled)
  })
}

/** Callers that wait until all work is finished. */
export class IdleWaiters {
  /** The callers. */
  waiting: (() => void)[] = []

  constructor(private readonly isIdle: () => boolean) {}

  /** Resolves at once, or with the next `check` that finds no work. */
  wait(): Promise<void> {
    if (this.isIdle()) return Promise.resolve()
    return new Promise(resolve => this.waiting.push(resolve))
  }

  check(): void {
    if (this.waiting.length === 0 || !this.isIdle()) return
    const { waiting } = this
    this.waiting = []
    for (const wake of waiting) wake()
  }
}

/** Waits that can all be ended early. */
export class Pauses {
  private readonly open = new Map<NodeJS.Timeout, () => void>()

  /** Resolves after the delay, in milliseconds, or when `end` is called. */
  wait(delayMs: number): Promise<void> {
    return new Promise(resolve => {
      const timer = setTimeout(() => {
        this.open.delete(timer)
        resolve()
      }, delayMs)
      this.open.set(timer, resolve)
    })
  }

  end(): void {
    for (const [timer, goOn] of this.open) {
      clearTimeout(timer)
      goOn()
    }
    this.open.clear()
  }
}

/** Deadlines that end soon after each other are handled together. */
const DEADLINE_PAUSE_MS = 10
/** A longer delay would fire at once. */
const MAX_TIMER_MS = 0x7fff_ffff

/** One timer for many deadlines. It fires when the first one has expired. */
export class DeadlineTimer {
  /** Time at which it fires. */
  dueMs = Number.POSITIVE_INFINITY
  private timer: NodeJS.Timeout | undefined

  constructor(private readonly onDeadline: () => void) {}

  arm(dueMs: number): void {
    if (dueMs >= this.dueMs) return
    this.stop()
    this.dueMs = dueMs
    const delayMs = Math.min(MAX_TIMER_MS, Math.max(DEADLINE_PAUSE_MS, dueMs - performance.now()))
    this.timer = setTimeout(() => {
      this.dueMs = Number.POSITIVE_INFINITY
      this.onDeadline()
    }, delayMs)
  }

  stop(): void {
    clearTimeout(this.timer)
    this.dueMs = Number.POSITIVE_INFINITY
  }
}

const MOST_PER_TURN = 100

/** Results that are available at once. A loop that awaits one after the other must not block timers and sockets. */
export class PromptResults<T> {
  private count = 0
  private turn: Promise<void> | undefined

  /** Settles the results at once. In a long series, some settle after a turn of the event loop, in order. */
  of(result: T): Promise<T> {
    if (this.turn === undefined) {
      this.count += 1
      if (this.count < MOST_PER_TURN) return Promise.resolve(result)
      this.count = 0
      this.turn = new Promise(resolve => {
        setImmediate(() => {
          this.turn = undefined
          resolve()
        })
      })
    }
    return this.turn.then(() => result)
  }
}

type Read<T> = IteratorResult<T, undefined>

/** The changes of topics, for one `for await` loop. */
export class ChangeReader<T extends { readonly topic: string }> implements AsyncIterableIterator<T> {
  private readonly pending: PendingChanges<T>
  private readonly waiting: ((read: Read<T>) => void)[] = []
  private isEnded = false

  constructor(
    limit: number,
    private readonly onEnd: () => void,
  ) {
    this.pending = new PendingChanges(limit)
  }

  add(change: T): void {
    const read = this.waiting.shift()
    if (read === undefined) this.pending.add(change)
    else read({ done: false, value: change })
  }

  end(): void {
    if (this.isEnded) return
    this.isEnded = true
    for (const read of this.waiting.splice(0)) read({ done: true, value: undefined })
    this.onEnd()
  }

  next(): Promise<Read<T>> {
    const value = this.pending.take()
    if (value !== undefined) return Promise.resolve({ done: false, value })
    if (this.isEnded) return Promise.resolve({ done: true, value: undefined })
    return new Promise(resolve => this.waiting.push(resolve))
  }

  return(): Promise<Read<T>> {
    this.end()
    return Promise.resolve({ done: true, value: undefined })
  }

  [Symbol.asyncIterator](): this {
    return this
  }
}

/** Settles like `work`, or rejects when it takes too long. @param what names the work in the error */
export function limited<T>(work: Promise<T>, what: string, timeoutMs: number | undefined): Promise<T> {
  if (timeoutMs === undefined) return work
  return new Promise((resolve, reject) => {
    const text = `${what} did not finish within ${timeoutMs} ms`
    const timer = setTimeout(() => reject(new MqttError('TIMEOUT', text)), timeoutMs)
    work.then(resolve, reject).finally(() => clearTimeout(timer))
  })
}
