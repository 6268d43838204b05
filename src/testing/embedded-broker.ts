import { once } from 'node:events'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Aedes, AedesOptions } from 'aedes'
import { streamPair } from './stream-pair.js'

export interface EmbeddedBrokerOptions {
  /** Port to listen on; 0 lets the operating system choose. @default 0 */
  readonly port?: number
  /** Address to listen on. @default '127.0.0.1' */
  readonly host?: string
  /** Whether a client may subscribe to a filter; a refused one gets 0x80 in SUBACK. @default every filter */
  readonly allowSubscribe?: (filter: string, clientId: string) => boolean
  /** Whether a client may connect. @default every client */
  readonly allowConnect?: (
    clientId: string,
    username: string | undefined,
    password: Buffer | undefined,
  ) => boolean
}

/**
 * An MQTT 3.1.1 broker inside the process, for tests and for trying things out. Built on `aedes`, which must be
 * installed. Keeps sessions and retained messages in memory.
 */
export class EmbeddedBroker {
  private readonly streams = new Set<Duplex>()

  private constructor(
    private readonly broker: Aedes,
    private readonly server: Server,
    /** Where it listens, for the option `url`. */
    readonly url: string,
  ) {}

  /** Starts a broker that listens. Rejects when the port is taken. */
  static async start(options: EmbeddedBrokerOptions = {}): Promise<EmbeddedBroker> {
    const host = options.host ?? '127.0.0.1'
    const server = createServer()
    server.listen(options.port ?? 0, host)
    await once(server, 'listening')
    const broker = await createAedes(aedesOptions(options)).catch((error: unknown) => {
      server.close()
      throw error
    })
    const embedded = new EmbeddedBroker(broker, server, `mqtt://${host}:${portOf(server)}`)
    server.on('connection', socket => embedded.serve(socket))
    return embedded
  }

  /** Opens a connection inside the process, without a port: give it as the option `createStream`. */
  readonly createStream = (): Duplex => {
    const [client, server] = streamPair()
    this.serve(server)
    return client
  }

  /** Clients connected now. */
  get connectedClients(): number {
    return this.broker.connectedClients
  }

  /** Publishes as the broker itself. */
  publish(
    topic: string,
    payload: string | Buffer,
    options: { qos?: 0 | 1 | 2; retain?: boolean } = {},
  ): Promise<void> {
    const { qos = 0, retain = false } = options
    return new Promise((resolve, reject) => {
      this.broker.publish(
        { cmd: 'publish', topic, payload: Buffer.from(payload), qos, retain, dup: false },
        error => (error ? reject(error) : resolve()),
      )
    })
  }

  /** Cuts every connection; clients may come back at once. */
  cut(): void {
    for (const stream of this.streams) stream.destroy()
  }

  /** Ends the broker and every connection. Sessions and retained messages are forgotten. */
  async stop(): Promise<void> {
    const serverClosed = new Promise<void>(resolve => this.server.close(() => resolve()))
    const brokerClosed = new Promise<void>(resolve => this.broker.close(() => resolve()))
    this.cut()
    await Promise.all([serverClosed, brokerClosed])
  }

  private serve(stream: Duplex | Socket): void {
    this.streams.add(stream)
    stream.once('close', () => this.streams.delete(stream))
    stream.on('error', () => stream.destroy())
    this.broker.handle(stream)
  }
}

/** Loaded here only, so that the other test doubles need no `aedes`. */
async function createAedes(options: AedesOptions): Promise<Aedes> {
  const aedes = await import('aedes').catch((cause: unknown) => {
    throw new Error('EmbeddedBroker needs the package aedes: npm install --save-dev aedes', { cause })
  })
  return aedes.Aedes.createBroker(options)
}

function portOf(server: Server): number {
  const address: AddressInfo | string | null = server.address()
  return typeof address === 'object' && address !== null ? address.port : 0
}

const NOT_AUTHORIZED = 5

function aedesOptions({ allowSubscribe, allowConnect }: EmbeddedBrokerOptions): AedesOptions {
  return {
    ...(allowSubscribe === undefined
      ? {}
      : {
          authorizeSubscribe: (client, subscription, done) =>
            done(null, allowSubscribe(subscription.topic, client.id) ? subscription : null),
        }),
    ...(allowConnect === undefined
      ? {}
      : {
          authenticate: (client, username, password, done) => {
            if (allowConnect(client.id, username, password)) return done(null, true)
            done(Object.assign(new Error('not authorized'), { returnCode: NOT_AUTHORIZED }), false)
          },
        }),
  }
}
