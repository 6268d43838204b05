import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { allClosed, ClientEnds } from './client-ends.js'
import { FaultPipe, type LinkConditions } from './fault-pipe.js'
import { turn } from './real-time.js'

export interface FaultLinkOptions {
  /** Port of the broker. */
  readonly port: number
  /** Host of the broker. @default '127.0.0.1' */
  readonly host?: string
}

const MAX_TURNS = 1_000

/** Direction of bytes: from the client to the broker, from the broker to the client, or both. */
export type LinkDirection = 'to-broker' | 'to-client' | 'both'

/**
 * A TCP proxy in front of a broker that fails on demand. Connect the client to `url`. Settings apply to existing and new
 * connections until you reset them.
 */
export class FaultLink {
  private readonly connections = new Set<LinkConnection>()
  private readonly toBroker: LinkConditions = { isStalled: false, bytesPerSecond: undefined, delayMs: 0 }
  private readonly toClient: LinkConditions = { isStalled: false, bytesPerSecond: undefined, delayMs: 0 }
  private readonly refused = new Set<Socket>()
  private readonly clientEnds = new ClientEnds()
  private isRefusing = false
  private response: Buffer | undefined
  private accepted = 0

  private constructor(
    private readonly server: Server,
    /** Port of the link on 127.0.0.1. */
    readonly port: number,
    private readonly target: Required<FaultLinkOptions>,
  ) {
    server.on('connection', socket => this.accept(socket))
  }

  static async start(options: FaultLinkOptions): Promise<FaultLink> {
    const server = createServer({ pauseOnConnect: true, allowHalfOpen: false })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const address: AddressInfo | string | null = server.address()
    const port = typeof address === 'object' && address !== null ? address.port : 0
    return new FaultLink(server, port, { host: '127.0.0.1', ...options })
  }

  get url(): string {
    return `mqtt://127.0.0.1:${this.port}`
  }

  /** Number of open connections. */
  get open(): number {
    return this.connections.size
  }

  /** Number of accepted connections since the start. */
  get dials(): number {
    return this.accepted
  }

  /**
   * Resets every connection on both sides with RST; bytes in transit are lost. Resolves when the clients in this process have
   * noticed. For clients that use TLS or run in another process, it resolves when the link has closed its own side.
   */
  cut(): Promise<void> {
    const ends = [...this.connections].flatMap(connection => connection.ends(this.clientEnds))
    this.cutConnections()
    return allClosed(ends)
  }

  /**
   * Forwards no more bytes, so that the buffers of the sender fill up. Resolves when all bytes forwarded before have been
   * sent, and the clients in this process have read them. After that nothing arrives.
   */
  async stall(direction: LinkDirection = 'both'): Promise<void> {
    this.change(direction, conditions => {
      conditions.isStalled = true
    })
    await Promise.all([...this.connections].map(connection => connection.passed(this.clientEnds)))
  }

  /** Ends stall, throttle and delay in both directions. */
  heal(): void {
    this.change('both', conditions => {
      conditions.isStalled = false
      conditions.bytesPerSecond = undefined
      conditions.delayMs = 0
    })
  }

  /** Limits the rate of each direction, in bytes per second. */
  throttle(bytesPerSecond: number, direction: LinkDirection = 'both'): void {
    this.change(direction, conditions => {
      conditions.bytesPerSecond = bytesPerSecond
    })
  }

  /** Delays all bytes in both directions, in milliseconds. */
  delay(delayMs: number, direction: LinkDirection = 'both'): void {
    this.change(direction, conditions => {
      conditions.delayMs = delayMs
    })
  }

  /** Closes the broker's side of every connection. The client's side stays open and discards bytes without a response. */
  halfOpen(): void {
    for (const connection of this.connections) connection.halfOpen()
  }

  /**
   * Resets new connections; existing connections stay open. With `response`, the link accepts a new connection, sends these bytes
   * after the first bytes of the client (such as a CONNACK that refuses), and closes it.
   */
  refuse(isRefusing = true, response?: Buffer): void {
    this.isRefusing = isRefusing
    this.response = response
  }

  /** Sends bytes to every client, as if they came from the broker. */
  inject(bytes: Buffer): void {
    for (const connection of this.connections) connection.inject(bytes)
  }

  async stop(): Promise<void> {
    const closed = once(this.server, 'close')
    this.server.close()
    this.clientEnds.stop()
    this.cutConnections()
    for (const client of this.refused) client.destroy()
    await closed
  }

  private cutConnections(): void {
    for (const connection of this.connections) connection.cut()
  }

  private accept(client: Socket): void {
    if (this.isRefusing) {
      this.refused.add(client)
      client.once('close', () => this.refused.delete(client))
      return refuse(client, this.response)
    }
    this.accepted += 1
    const broker = connect(this.target.port, this.target.host)
    const connection = new LinkConnection(client, broker, this.toBroker, this.toClient)
    this.connections.add(connection)
    for (const socket of [client, broker]) {
      socket.once('close', () => client.closed && broker.closed && this.connections.delete(connection))
    }
  }

  private change(direction: LinkDirection, apply: (conditions: LinkConditions) => void): void {
    if (direction !== 'to-client') apply(this.toBroker)
    if (direction !== 'to-broker') apply(this.toClient)
    for (const connection of this.connections) connection.look()
  }
}

class LinkConnection {
  private readonly pipes: readonly FaultPipe[]
  private isHalfOpen = false

  constructor(
    private readonly client: Socket,
    private readonly broker: Socket,
    toBroker: LinkConditions,
    toClient: LinkConditions,
  ) {
    client.setNoDelay(true)
    broker.setNoDelay(true)
    this.pipes = [new FaultPipe(client, broker, toBroker), new FaultPipe(broker, client, toClient)]
    for (const socket of [client, broker]) socket.on('error', () => {})
    client.once('close', () => this.pipes[0]?.finish())
    broker.once('close', () => {
      if (!this.isHalfOpen) this.pipes[1]?.finish()
    })
  }

  cut(): void {
    this.client.resetAndDestroy()
    this.broker.resetAndDestroy()
  }

  /** Both sockets of the link, and the client's socket if it is in this process. */
  ends(clientEnds: ClientEnds): Socket[] {
    const clientEnd = clientEnds.of(this.client)
    return [this.client, this.broker, ...(clientEnd === undefined ? [] : [clientEnd])]
  }

  /**
   * Resolves when no forwarded bytes wait in the link or in the client's socket. The number of turns is limited, because a
   * side that does not read would never become empty.
   */
  async passed(clientEnds: ClientEnds): Promise<void> {
    const clientEnd = clientEnds.of(this.client)
    const isUnderWay = () =>
      !this.client.destroyed &&
      (this.client.writableLength + this.broker.writableLength > 0 ||
        (clientEnd !== undefined && clientEnd.bytesRead < this.client.bytesWritten))
    for (let turns = 0; turns < MAX_TURNS && isUnderWay(); turns += 1) await turn()
  }

  halfOpen(): void {
    this.isHalfOpen = true
    for (const pipe of this.pipes) pipe.stop()
    this.broker.destroy()
    // A listener for 'readable' would stop the stream from flowing.
    this.client.removeAllListeners('readable')
    this.client.resume()
  }

  inject(bytes: Buffer): void {
    this.client.write(bytes)
  }

  look(): void {
    for (const pipe of this.pipes) pipe.look()
  }
}

function refuse(client: Socket, response: Buffer | undefined): void {
  client.on('error', () => {})
  if (response === undefined) {
    client.resetAndDestroy()
    return
  }
  client.once('data', () => client.end(response))
  client.resume()
}
