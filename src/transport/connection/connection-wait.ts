import { MqttError } from '../../errors.js'
import type { ConnectionState } from './connection-state.js'

/** How long to wait for a connection. */
export interface WaitOptions {
  /** Ends the wait with `ABORTED`. */
  readonly signal?: AbortSignal
  /** Ends the wait with `TIMEOUT`, in milliseconds. @default no limit */
  readonly timeoutMs?: number
}

interface Observed {
  readonly state: ConnectionState
  attach(listener: { stateChanged(state: ConnectionState): void }): () => void
}

/** Resolves when there is a connection; rejects when there will be none, or not in time. */
export function whenConnected(connection: Observed, { signal, timeoutMs }: WaitOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    let timer: NodeJS.Timeout | undefined
    const settle = (settled: () => void): void => {
      clearTimeout(timer)
      detach()
      signal?.removeEventListener('abort', abort)
      settled()
    }
    const look = (state: ConnectionState): void => {
      if (state.status === 'connected') settle(resolve)
      else if (state.status === 'closed') settle(() => reject(state.cause ?? closedError()))
    }
    const abort = () => settle(() => reject(abortedError(signal)))
    const detach = connection.attach({ stateChanged: look })
    if (signal?.aborted) return abort()
    signal?.addEventListener('abort', abort)
    if (timeoutMs !== undefined) {
      timer = setTimeout(() => settle(() => reject(timeoutError(timeoutMs))), timeoutMs)
    }
    look(connection.state)
  })
}

export function closedError(): MqttError {
  return new MqttError('CONNECTION_CLOSED', 'the connection was closed by this application')
}

function abortedError(signal: AbortSignal | undefined): MqttError {
  return new MqttError('ABORTED', 'the wait for the connection was aborted', { cause: signal?.reason })
}

function timeoutError(timeoutMs: number): MqttError {
  return new MqttError('TIMEOUT', `there was no connection within ${timeoutMs} ms`)
}
