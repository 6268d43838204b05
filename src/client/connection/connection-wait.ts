import type { ConnectionState } from '../../core/connection/connection-state.js'
import { closedError, MqttError } from '../../core/errors.js'

/** Limits of a wait. */
export interface WaitOptions {
  /** Ends the wait with `ABORTED`. @default none */
  readonly signal?: AbortSignal
  /** Ends the wait with `TIMEOUT`, in milliseconds. @default no limit */
  readonly timeoutMs?: number
}

interface Observed {
  readonly state: ConnectionState
  attach(listener: { stateChanged(state: ConnectionState): void }): () => void
}

type Settle = (failure?: MqttError) => void

/** Resolves when there is a connection; rejects when there will be none, or not in time. */
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
 * A wait that the caller may bound, and that leaves nothing behind when it ends.
 * @param what what is waited for, as an error names it
 * @param begin begins the wait; may call `settle` at once. @returns what ends it
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
    signal?.addEventListener('abort', abort)
    if (timeoutMs !== undefined) timer = setTimeout(() => settle(timeoutError(what, timeoutMs)), timeoutMs)
    end = begin(settle)
    if (isSettled) end()
  })
}

/** One client has one life. */
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
