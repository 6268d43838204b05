import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { turn, WAIT_MS, within } from './real-time.js'

/** Node announces every TCP connection that this process opens here. */
const CHANNEL = 'net.client.socket'

/**
 * The other ends of connections, where they are in this process: what a test waits for, so that the client knows
 * what happened to its connection.
 */
export class ClientEnds {
  private readonly sockets = new Set<Socket>()

  constructor() {
    subscribe(CHANNEL, this.add)
  }

  /** The socket at the other end of one that a server accepted; undefined when it is in another process, or TLS. */
  of(accepted: Duplex): Socket | undefined {
    if (!(accepted instanceof Socket)) return undefined
    return [...this.sockets].find(
      socket => socket.localPort === accepted.remotePort && socket.remotePort === accepted.localPort,
    )
  }

  stop(): void {
    unsubscribe(CHANNEL, this.add)
    this.sockets.clear()
  }

  private readonly add = (message: unknown): void => {
    const socket = typeof message === 'object' && message !== null && 'socket' in message && message.socket
    if (!(socket instanceof Socket)) return
    this.sockets.add(socket)
    socket.once('close', () => this.sockets.delete(socket))
  }
}

/** Resolves when these streams are closed and their owners have been told. It need not be awaited. */
export function allClosed(streams: readonly Duplex[]): Promise<void> {
  const closed = Promise.all(streams.map(closeOf))
  const noticed = within(
    closed.then(turn),
    WAIT_MS,
    () => `a client did not notice within ${WAIT_MS} ms that its connection was cut; it may not be reading`,
  )
  noticed.catch(() => {})
  return noticed
}

function closeOf(stream: Duplex): Promise<void> {
  return new Promise(resolve => (stream.closed ? resolve() : stream.once('close', () => resolve())))
}
