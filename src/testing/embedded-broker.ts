import { once } from 'node:events'
import { type AddressInfo, createServer, type Server } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Aedes, AedesOptions, Client, PublishPacket } from 'aedes'
import { allClosed, ClientEnds } from './client-ends.js'
import { type BrokerMessage, MessageLog, type NextOptions } from './message-log.js'
import { tapAcknowledgements } from './packet-tap.js'
import { WAIT_MS, within } from './real-time.js'
import { streamPair } from './stream-pair.js'
import { SubscriptionLog } from './subscription-log.js'

export interface EmbeddedBrokerOptions {
  /** Port to listen on. With 0 the operating system chooses a port. @default 0 */
  readonly port?: number
  /** Address to listen on. @default '127.0.0.1' */
  readonly host?: string
  /** Decides whether a client may subscribe to a filter. A refused filter gets 0x80 in SUBACK. @default all filters */
  readonly allowSubscribe?: (filter: string, clientId: string) => boolean
  /** Decides whether a client may connect. @default all clients */
  readonly allowConnect?: (
    clientId: string,
    username: string | undefined,
    password: Buffer | undefined,
  ) => boolean
}

/** Payload of `publish` and `deliver`. Strings and bytes are sent unchanged, other values as JSON. */
export type BrokerPayload = string | Uint8Array | object | number | boolean

/**
 * An MQTT 3.1.1 broker inside the process, for tests and experiments. Requires the package `aedes`, version 0.51 or 1.x.
 * Jest cannot load the ES modules of 1.x before Node 24. Sessions and retained messages are kept in memory.
 */
export class EmbeddedBroker {
  /** The open connections, with the socket of the client if it is known. */
  private readonly streams = new Map<Duplex, Duplex | undefined>()
  private readonly clientEnds = new ClientEnds()
  private readonly publishes = new MessageLog('published')
  private readonly acknowledgements = new MessageLog('acknowledged')
  private readonly subscriptions = new SubscriptionLog()
  private readonly ackListeners = new Set<(message: BrokerMessage) => void>()

  private constructor(
    private readonly broker: Aedes,
    private readonly server: Server,
    /** URL of the broker, for the option `url`. */
    readonly url: string,
  ) {
    broker.on('publish', (packet, client) => {
      if (client !== null) this.publishes.add(messageOf(packet, client.id))
    })
    broker.on('subscribe', (subscriptions, client) =>
      this.subscriptions.add(sessionOf(client), subscriptions),
    )
    broker.on('unsubscribe', (topics, client) => this.subscriptions.remove(sessionOf(client), topics))
  }

  /** Starts a broker. Resolves when it listens, and rejects if the port is in use or `aedes` cannot be loaded. */
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

  /** Opens a connection inside the process, without a port. Pass it as the option `createStream`. */
  readonly createStream = (): Duplex => {
    const [client, server] = streamPair()
    this.serve(server, client)
    return client
  }

  /** Number of connected clients. */
  get connectedClients(): number {
    return this.broker.connectedClients
  }

  /** Messages that clients have published, in order. Limited to the last 1,000 messages or 16 MiB. */
  get published(): readonly BrokerMessage[] {
    return this.publishes.all
  }

  /**
   * QoS 1 and 2 messages that clients have acknowledged, in order. Limited to the last 1,000 messages or 16 MiB. A client of
   * this package acknowledges a QoS 1 message when its handlers have finished.
   */
  get acknowledged(): readonly BrokerMessage[] {
    return this.acknowledgements.all
  }

  /**
   * Returns the next message that a client publishes, or has published, on a matching topic. Returns each message once.
   * Rejects after `timeoutMs` with an error that lists the topics of the published messages.
   */
  nextMessage(filter: string, options?: NextOptions): Promise<BrokerMessage> {
    return this.publishes.next(filter, options)
  }

  /** Publishes a message as the broker. Resolves when the broker has forwarded it to the subscribers. */
  publish(
    topic: string,
    payload: BrokerPayload,
    options: { qos?: 0 | 1 | 2; retain?: boolean } = {},
  ): Promise<void> {
    const { qos = 0, retain = false } = options
    return new Promise((resolve, reject) => {
      this.broker.publish(
        { cmd: 'publish', topic, payload: bytesOf(payload), qos, retain, dup: false },
        error => (error ? reject(error) : resolve()),
      )
    })
  }

  /**
   * Publishes a message at QoS 1, as a device would. Waits until a client subscribes to the topic at QoS 1, and resolves when
   * a client has acknowledged the message. A client of this package does so when the handlers have finished. Rejects after
   * `timeoutMs` with an error that says which of the two is missing.
   */
  async deliver(topic: string, payload: BrokerPayload, options: NextOptions = {}): Promise<void> {
    const { timeoutMs = WAIT_MS } = options
    const bytes = bytesOf(payload)
    const late = (what: string) => `the message on "${topic}" was not handled within ${timeoutMs} ms: ${what}`
    await within(this.subscriptions.matching(topic), timeoutMs, () => late(this.noSubscription(topic)))
    let listener: (message: BrokerMessage) => void = () => {}
    const acknowledged = new Promise<void>(resolve => {
      listener = message => message.topic === topic && message.payload.equals(bytes) && resolve()
    })
    this.ackListeners.add(listener)
    await this.publish(topic, bytes, { qos: 1 })
    await within(acknowledged, timeoutMs, () => late('no client has acknowledged it')).finally(() =>
      this.ackListeners.delete(listener),
    )
  }

  private noSubscription(topic: string): string {
    const shared = this.subscriptions.sharedOf(topic)
    const what = 'no client has a matching subscription at QoS 1'
    if (shared === undefined) return what
    return `${what}, except "${shared}", and this broker does not support Shared Subscriptions: leave out "sharedGroup" in this test, or use another broker`
  }

  /**
   * Cuts every connection; clients may reconnect at once. Resolves when the clients in this process have noticed. After that,
   * `whenConnected()` waits for the next connection.
   */
  cut(): Promise<void> {
    const ends = [...this.streams].flatMap(([stream, clientEnd]) => [
      stream,
      clientEnd ?? this.clientEnds.of(stream) ?? stream,
    ])
    this.destroyStreams()
    return allClosed(ends)
  }

  /** Closes every connection and stops the broker. Sessions and retained messages are lost. */
  async stop(): Promise<void> {
    this.clientEnds.stop()
    const serverClosed = new Promise<void>(resolve => this.server.close(() => resolve()))
    const brokerClosed = new Promise<void>(resolve => this.broker.close(() => resolve()))
    this.destroyStreams()
    await Promise.all([serverClosed, brokerClosed])
  }

  private destroyStreams(): void {
    for (const stream of this.streams.keys()) stream.destroy()
  }

  private serve(stream: Duplex, clientEnd?: Duplex): void {
    this.streams.set(stream, clientEnd)
    stream.once('close', () => this.streams.delete(stream))
    stream.on('error', () => stream.destroy())
    tapAcknowledgements(stream, packet => {
      const message = messageOf(packet, client.id)
      this.acknowledgements.add(message)
      for (const listener of this.ackListeners) listener(message)
    })
    const client = this.broker.handle(stream)
    stream.once('close', () => this.subscriptions.removeAll(client))
  }
}

/** A persistent session outlives its connection. */
function sessionOf(client: Client): unknown {
  return Reflect.get(client, 'clean') === false ? client.id : client
}

function messageOf(packet: PublishPacket, clientId: string): BrokerMessage {
  const { topic, payload, qos, retain } = packet
  return { topic, payload: Buffer.from(payload), qos, retain, clientId }
}

function bytesOf(payload: BrokerPayload): Buffer {
  if (typeof payload === 'string' || payload instanceof Uint8Array) return Buffer.from(payload)
  return Buffer.from(JSON.stringify(payload))
}

/** Loads `aedes` on demand, so that the other test doubles work without it. */
async function createAedes(options: AedesOptions): Promise<Aedes> {
  const loaded = await import('aedes').catch((cause: unknown) => {
    throw new Error(ADVICE, { cause })
  })
  // Seam: version 0.51 is CommonJS and exports a function instead of the class.
  const { createBroker } = 'Aedes' in loaded ? loaded.Aedes : (loaded as { createBroker: CreateBroker })
  return createBroker(options)
}

type CreateBroker = (options: AedesOptions) => Aedes

const ADVICE =
  'EmbeddedBroker could not load the package aedes. Install it: npm install --save-dev aedes. In Jest before Node 24, which cannot load ES modules: npm install --save-dev aedes@0.51'

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
