import { connect, type Socket } from 'node:net'

/** Connections to a port of the loopback address that the test can cut; give `createStream` as the option. */
export class CuttableLink {
  private readonly sockets = new Set<Socket>()
  private pings = 0
  private pingWaiters: { readonly count: number; readonly wake: () => void }[] = []

  constructor(private readonly port: number) {}

  readonly createStream = (): Socket => {
    const socket = connect(this.port, '127.0.0.1')
    this.sockets.add(socket)
    socket.once('close', () => this.sockets.delete(socket))
    // PINGRESP is alone in its segment on an idle link: 0xD0 0x00.
    socket.on('data', (bytes: Buffer) => {
      if (bytes.length === 2 && bytes[0] === 0xd0) this.countPing()
    })
    return socket
  }

  /** Cuts what is connected now. */
  cut(): void {
    for (const socket of this.sockets) socket.destroy()
  }

  /** Resolves when so many PINGRESP have come since the start. */
  pinged(count: number): Promise<void> {
    return new Promise(wake => this.pingWaiters.push({ count, wake }))
  }

  private countPing(): void {
    this.pings += 1
    for (const waiter of this.pingWaiters) if (this.pings >= waiter.count) waiter.wake()
  }
}
