import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { turn, WAIT_MS, within } from './real-time.js'

/** Diagnostics channel on which Node reports every TCP connection that this process opens. */
const CHANNEL = 'net.client.socket'

/** The client sockets of this process. Shared, so that each socket has one listener, however many doubles there are. */
const sockets = new Set<Socket>()
/** The doubles that use them. */
const users = new Set<ClientEnds>()

/**
 * Finds the client sockets of connections within this process, so that a test can wait until the client has noticed what
 * happened to its connection.
 */
export class ClientEnds {
  constructor() {
    if (users.size === 0) subscribe(CHANNEL, add)
    users.add(this)
  }

  /** Returns the client socket of an accepted socket; undefined if it is in another process or uses TLS. */
  of(accepted: Duplex): Socket | undefined {
    if (!(accepted instanceof Socket)) return undefined
    return [...sockets].find(
      socket => socket.localPort === accepted.remotePort && socket.remotePort === accepted.localPort,
    )
  }

  stop(): void {
    users.delete(this)
    if (users.size > 0) return
    unsubscribe(CHANNEL, add)
    sockets.clear()
  }
}

function add(message: unknown): void {
  const socket = typeof message === 'object' && message !== null && 'socket' in message && message.socket
  if (!(socket instanceof Socket)) return
  sockets.add(socket)
  socket.once('close', () => sockets.delete(socket))
}

/** Resolves when these streams are closed and have emitted `close`. You need not await it. */
export function allClosed(streams: readonly Duplex[]): Promise<void> {
  const closed = Promise.all(streams.map(closeOf))
  const noticed = within(
    closed.then(turn),
    WAIT_MS,
    () =>
      `a client did not notice within ${WAIT_MS} ms that its connection was cut; check that it is reading from its socket`,
  )
  noticed.catch(() => {})
  return noticed
}

function closeOf(stream: Duplex): Promise<void> {
  return new Promise(resolve => (stream.closed ? resolve() : stream.once('close', () => resolve())))
}
