import { connect } from 'node:net'
import { type IClientOptions, MqttClient, connect as mqttConnect } from 'mqtt'
import type { IConnackPacket, IPublishPacket, IPubrelPacket, Packet } from 'mqtt-packet'
import type { ConnectedSession, ProtocolVersion } from '../../core/connection/connection-state.js'
import { MqttError } from '../../core/errors.js'
import { InboundSizeGuard } from '../../core/protocol/inbound-size-guard.js'
import { brokerLimits, PACKET_IDENTIFIER_NOT_FOUND, resolveTopicAlias } from '../../core/protocol/packets.js'
import type { ResolvedOptions } from '../../options/resolved-options.js'
import { clientOptions, withoutUser } from './client-settings.js'
import { type Endpoint, Endpoints } from './endpoint.js'
import type { Dialler, Link, LinkEvents, PublishFeedback } from './link.js'
import { PacketWriter } from './packet-writer.js'
import {
  connectFailed,
  faultOf,
  hungUp,
  internalError,
  lostBy,
  mayBeFirst,
  serverDisconnect,
  tooEarly,
  tooLarge,
} from './protocol-errors.js'
import { ReadingLag } from './reading-lag.js'
import { Unreleased, UnreleasedStore } from './unreleased.js'

/** Told to `mqtt` in place of a PUBACK: it sends none and goes on with the next packet. */
const ACK_LATER = new Error('acknowledged when the handlers have ended')

/** `mqtt` does nothing with such a packet. */
const REFUSED = { cmd: 'refused' }

/** Dials with `mqtt`: a fresh client for every attempt, which keeps nothing and repeats nothing by itself. */
export function createDialler(options: ResolvedOptions, endpoints = new Endpoints(options)): Dialler {
  const unreleased = new Unreleased()
  return {
    unreleased,
    locate: (...where) => endpoints.next(...where),
    dial: (endpoint, protocolVersion, events) => {
      const settings = clientOptions(options, endpoint, protocolVersion)
      const client = openClient(options, endpoint, settings)
      const connected = (session: ConnectedSession): void => {
        endpoints.keep()
        if (!session.sessionPresent) unreleased.clear()
        events.connected(session)
      }
      const own = { ...events, connected }
      const link = new ClientLink(client, protocolVersion, endpoint.name, own, options.inbound)
      client.incomingStore = new UnreleasedStore(unreleased, goOn => link.stored(goOn))
      return link
    },
  }
}

function openClient(options: ResolvedOptions, { url = '' }: Endpoint, settings: IClientOptions): MqttClient {
  const { createStream, localAddress } = options
  if (createStream !== undefined) return new MqttClient(() => createStream(), settings)
  const { protocol, hostname, port } = new URL(url)
  if (localAddress === undefined || protocol !== 'mqtt:') return mqttConnect(withoutUser(url), settings)
  // The TCP builder of `mqtt` takes no local address.
  const host = hostname.replace(/^\[|\]$/g, '')
  return new MqttClient(() => connect({ host, port: Number(port || 1883), localAddress }), settings)
}

class ClientLink implements Link {
  private connected = false
  isIntakePaused = false
  private resumedMs = Number.NEGATIVE_INFINITY
  private readonly lag = new ReadingLag()
  /** Something was not read since the last PINGREQ, and its answer may stand behind that. */
  private hasStalled = false
  /** What the parser waits for while the intake is paused. */
  private goOn: (() => void) | undefined
  private isEnded = false
  /** Of CONNACK; the error that `mqtt` makes of a refusal has only the Reason Code. */
  private serverReference: string | undefined
  private cause: MqttError | undefined
  /** The client and its stream know the password, the headers and the keys. */
  readonly #client: MqttClient
  readonly #stream: MqttClient['stream']
  readonly writer: PacketWriter
  private feedback: PublishFeedback | undefined
  private readonly topicAliases = new Map<number, string>()

  constructor(
    client: MqttClient,
    readonly protocolVersion: ProtocolVersion,
    private readonly target: string,
    private readonly events: LinkEvents,
    { maxPacketBytes }: { readonly maxPacketBytes: number },
  ) {
    this.#client = client
    this.#stream = client.stream
    this.writer = new PacketWriter(this.#stream, protocolVersion)
    // With Nagle's algorithm on, a request at QoS 1 waits 40 ms for the delayed ACK of the peer.
    if ('setNoDelay' in this.#stream && typeof this.#stream.setNoDelay === 'function')
      this.#stream.setNoDelay(true)
    this.listen()
    const guard = new InboundSizeGuard(maxPacketBytes)
    // Before the parser, which would hand on what is too large, or end the connection with a cause of its own.
    this.#stream.prependListener('data', (bytes: Uint8Array) => {
      this.lag.read(bytes.length)
      const size = guard.feed(bytes)
      if (size !== undefined && this.cause === undefined) this.hangUp(tooLarge(size, maxPacketBytes))
    })
  }

  unwrap(): MqttClient {
    return this.#client
  }

  stored(goOn: () => void): void {
    if (this.cause === undefined) this.guard(() => this.events.stored())
    if (this.isIntakePaused) this.goOn = goOn
    else if (this.cause === undefined) goOn()
  }

  get intakeResumedMs(): number {
    return Math.max(this.resumedMs, this.lag.caughtUpMs)
  }

  get behindSinceMs(): number | undefined {
    return this.lag.behindSinceMs
  }

  isWritable(): boolean {
    return this.#stream.writable
  }

  send(packet: Packet): void {
    this.writer.send(packet)
  }

  reportTo(feedback: PublishFeedback | undefined): void {
    this.feedback = feedback
    this.writer.observer = feedback
  }

  pauseIntake(): void {
    if (this.isIntakePaused) return
    this.isIntakePaused = true
    this.hasStalled = true
  }

  resumeIntake(): void {
    if (!this.isIntakePaused) return
    this.isIntakePaused = false
    this.resumedMs = performance.now()
    const goOn = this.goOn
    this.goOn = undefined
    goOn?.()
  }

  disconnect(): void {
    this.send({ cmd: 'disconnect', reasonCode: 0 })
    this.writer.flush()
    this.cause ??= new MqttError('CONNECTION_CLOSED', 'the connection was closed by this application')
    this.#stream.end()
  }

  hangUp(cause: MqttError): void {
    if (this.protocolVersion === 5) this.send({ cmd: 'disconnect', reasonCode: cause.reasonCode ?? 0 })
    this.writer.flush()
    this.cause ??= cause
    // Time for DISCONNECT to leave, and no more: the peer may not read.
    setImmediate(() => this.fail(cause))
  }

  destroy(): void {
    this.fail(new MqttError('CONNECTION_CLOSED', 'the connection was given up by this application'))
  }

  private listen(): void {
    const client = this.#client
    const stream = this.#stream
    client.on('error', error => this.fail(this.explain(error)))
    // `mqtt` drops errors of the stream that have no code.
    stream.on('error', error => this.fail(this.explain(error)))
    client.on('disconnect', packet => this.fail(serverDisconnect(packet)))
    client.on('close', () => this.end())
    client.on('packetsend', ({ cmd }) => {
      if (cmd !== 'pingreq') return
      this.hasStalled = this.isIntakePaused
      this.feedback?.pinged()
    })
    const giveUp = client.onKeepaliveTimeout.bind(client)
    // Asked again after each half of the keepalive, until PINGRESP comes.
    client.onKeepaliveTimeout = () => (this.hasStalled ? client.sendPing() : giveUp())
    // MQTT has no half-closed connections, and some streams emit no 'close' after 'end'.
    stream.on('end', () => this.cause ?? this.fail(hungUp(this.connected, this.target)))
    if (stream.destroyed) setImmediate(() => this.fail(hungUp(this.connected, this.target)))
    client.on('packetreceive', this.received)
    client.handleMessage = (packet, done) => {
      // What comes behind the end of the connection is not taken, so that the broker delivers it again.
      if (this.cause !== undefined) return done(ACK_LATER)
      if (packet.qos === 2) client.incomingStore.del(packet, () => {})
      this.guard(() => this.events.message(packet))
      const goOn = () => done(packet.qos === 1 ? ACK_LATER : undefined)
      if (this.isIntakePaused) this.goOn = goOn
      else queueMicrotask(goOn)
    }
  }

  /** An exception inside an event of `mqtt` would stop its parser for good, so it ends the connection instead. */
  private readonly received = (packet: Packet): void => {
    try {
      if (!this.connected && !mayBeFirst(packet)) return this.refuse(packet, tooEarly(packet))
      switch (packet.cmd) {
        case 'puback':
        case 'pubcomp':
          this.writer.acknowledged()
          return this.feedback?.acknowledged(packet)
        case 'pubrec':
          return this.feedback?.acknowledged(packet)
        case 'pingresp':
          return this.feedback?.confirmed()
        case 'suback':
        case 'unsuback':
          return this.events.answered(packet)
        case 'publish':
        case 'pubrel':
          return this.check(packet)
        case 'connack':
          return this.accept(packet)
      }
    } catch (cause) {
      this.fail(internalError(cause))
    }
  }

  private accept(packet: IConnackPacket): void {
    this.serverReference = packet.properties?.serverReference
    const { serverKeepAlive } = packet.properties ?? {}
    // `mqtt` emits 'connect' a few turns later, when it may have handed on what stands behind CONNACK.
    if (serverKeepAlive !== undefined) this.#client.options.keepalive = serverKeepAlive
    const code = this.protocolVersion === 5 ? packet.reasonCode : packet.returnCode
    if (code !== 0 || this.connected || this.cause !== undefined) return
    this.connected = true
    this.events.connected({
      broker: this.target,
      protocolVersion: this.protocolVersion,
      sessionPresent: packet.sessionPresent,
      limits: brokerLimits(this.protocolVersion, packet.properties),
    })
  }

  /** An exception inside an event of `mqtt` would stop its parser for good, so it ends the connection instead. */
  private guard(work: () => void): void {
    try {
      work()
    } catch (cause) {
      this.fail(internalError(cause))
    }
  }

  private check(packet: IPublishPacket | IPubrelPacket): void {
    if (packet.cmd === 'publish' && packet.properties?.topicAlias !== undefined)
      resolveTopicAlias(packet, packet.properties.topicAlias, this.topicAliases)
    const fault = faultOf(packet)
    if (fault !== undefined) return this.refuse(packet, fault)
    if (packet.cmd === 'publish' || this.protocolVersion === 4) return
    // MQTT 5 has a Reason Code for an unknown identifier (3.7.2.1); `mqtt` would report success.
    this.#client.incomingStore.get(packet, unknown => {
      if (!unknown) return
      this.send({ cmd: 'pubcomp', messageId: packet.messageId ?? 0, reasonCode: PACKET_IDENTIFIER_NOT_FOUND })
      Object.assign(packet, REFUSED)
    })
  }

  /** Ends the connection. */
  private refuse(packet: Packet, cause: MqttError): void {
    Object.assign(packet, REFUSED)
    if (this.connected) this.hangUp(cause)
    else this.fail(cause)
  }

  private fail(cause: MqttError): void {
    // One error of the stream comes from the stream and from `mqtt`.
    const isSame = cause === this.cause || (cause.cause !== undefined && cause.cause === this.cause?.cause)
    if (this.cause !== undefined && !isSame) this.events.noticed(cause)
    this.cause ??= cause
    this.#stream.destroy()
    // Not every stream announces its end.
    setImmediate(() => this.end())
  }

  private end(): void {
    if (this.isEnded) return
    this.isEnded = true
    this.writer.stop()
    this.lag.stop()
    // Its timers end with this event, which not every stream leads to.
    this.#client.emit('close')
    this.events.closed(this.cause ?? hungUp(this.connected, this.target))
  }

  private explain(error: Error): MqttError {
    return this.connected ? lostBy(error) : connectFailed(error, this.target, this.serverReference)
  }
}
