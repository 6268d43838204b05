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

/** Which way bytes go: from the client to the broker, back, or both. */
export type LinkDirection = 'to-broker' | 'to-client' | 'both'

/**
 * A TCP link to a broker that fails on demand: it cuts, stalls, throttles, delays, half-opens and refuses. Point
 * the client at `url`; what is set holds for the connections there are and for new ones, until it is set back.
 */
export class FaultLink {
  private readonly connections = new Set<LinkConnection>()
  private readonly toBroker: LinkConditions = { isStalled: false, bytesPerSecond: undefined, delayMs: 0 }
  private readonly toClient: LinkConditions = { isStalled: false, bytesPerSecond: undefined, delayMs: 0 }
  private readonly refused = new Set<Socket>()
  private readonly clientEnds = new ClientEnds()
  private isRefusing = false
  private answer: Buffer | undefined
  private accepted = 0

  private constructor(
    private readonly server: Server,
    /** Port of the loopback address at which clients reach the broker through this link. */
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

  /** Connections open now. */
  get open(): number {
    return this.connections.size
  }

  /** Connections that clients have made since the start, refused ones left out. */
  get dials(): number {
    return this.accepted
  }

  /**
   * Cuts every connection on both sides, with RST, so that what is under way is lost. Resolves when the clients in
   * this process know it; of clients that use TLS or run elsewhere only this end is waited for.
   */
  cut(): Promise<void> {
    const ends = [...this.connections].flatMap(connection => connection.ends(this.clientEnds))
    this.cutConnections()
    return allClosed(ends)
  }

  /**
   * Takes no more bytes in; the sender's buffers fill. Resolves when what was let through before has left, and the
   * clients in this process have read it: from then on nothing arrives.
   */
  async stall(direction: LinkDirection = 'both'): Promise<void> {
    this.change(direction, conditions => {
      conditions.isStalled = true
    })
    await Promise.all([...this.connections].map(connection => connection.passed(this.clientEnds)))
  }

  /** Ends stalling, throttling and delaying, both ways. */
  heal(): void {
    this.change('both', conditions => {
      conditions.isStalled = false
      conditions.bytesPerSecond = undefined
      conditions.delayMs = 0
    })
  }

  /** Lets at most so many bytes a second through, each way on its own. */
  throttle(bytesPerSecond: number, direction: LinkDirection = 'both'): void {
    this.change(direction, conditions => {
      conditions.bytesPerSecond = bytesPerSecond
    })
  }

  /** Holds all bytes back for so long, in milliseconds. */
  delay(delayMs: number, direction: LinkDirection = 'both'): void {
    this.change(direction, conditions => {
      conditions.delayMs = delayMs
    })
  }

  /** The broker's side of every connection goes; the client's stays open, swallows bytes and never answers. */
  halfOpen(): void {
    for (const connection of this.connections) connection.halfOpen()
  }

  /**
   * New connections are reset; those there are stay. With `answer`, they are taken, get these bytes in answer to
   * their first ones (a CONNACK that refuses, say), and are ended.
   */
  refuse(isRefusing = true, answer?: Buffer): void {
    this.isRefusing = isRefusing
    this.answer = answer
  }

  /** Sends bytes of the test's own to every client, as if the broker had sent them. */
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
      return refuse(client, this.answer)
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

  /** Both sockets of the link, and the client's where it is in this process. */
  ends(clientEnds: ClientEnds): Socket[] {
    const clientEnd = clientEnds.of(this.client)
    return [this.client, this.broker, ...(clientEnd === undefined ? [] : [clientEnd])]
  }

  /**
   * Resolves when nothing that was let through waits on this side, or in the client's socket; at the latest after
   * some turns of the event loop, since a side that does not read would keep its bytes waiting.
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
    // A listener for 'readable' would keep the stream from flowing.
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

function refuse(client: Socket, answer: Buffer | undefined): void {
  client.on('error', () => {})
  if (answer === undefined) {
    client.resetAndDestroy()
    return
  }
  client.once('data', () => client.end(answer))
  client.resume()
}
