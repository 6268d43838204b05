import type { MqttClient } from 'mqtt'
import type { IConnackPacket, IPublishPacket, IPubrelPacket, Packet } from 'mqtt-packet'
import type { ProtocolVersion } from '../../core/connection/connection-state.js'
import { closedError, MqttError } from '../../core/errors.js'
import { type PubackPacket, resolveTopicAlias } from '../../core/protocol/packet-decoder.js'
import { PACKET_IDENTIFIER_NOT_FOUND } from '../../core/protocol/packets.js'
import { authenticate } from './authentication.js'
import type { Endpoint, Link, LinkEvents, MessageReceiver, PublishFeedback, PublishPacket } from './link.js'
import {
  failureOf,
  faultOf,
  faultOfFirst,
  hungUp,
  internalError,
  malformed,
  serverDisconnect,
  sessionOf,
} from './link.js'
import { PacketReader } from './packet-reader.js'
import { PacketWriter } from './packet-writer.js'

/** Passed to `mqtt` instead of sending PUBACK: `mqtt` sends none and continues with the next packet. */
const ACK_LATER = new Error('acknowledged when the handlers have finished')
export const ignore = (): void => {}

/** `mqtt` ignores such a packet. */
const REFUSED = { cmd: 'refused' }

/** One connection through an `mqtt` client. */
export class ClientLink implements Link {
  private connected = false
  isIntakePaused = false
  private resumedMs = Number.NEGATIVE_INFINITY
  /** The callback that lets the parser continue with the next packet, and its argument. */
  private parsed: ((error?: Error) => void) | undefined
  private verdict: Error | undefined
  private isEnded = false
  /** From CONNACK, because the error of `mqtt` for a refusal only has the Reason Code. */
  private serverReference: string | undefined
  private cause: MqttError | undefined
  /** Private, because the client and its stream hold the password, the headers and the keys. */
  readonly #client: MqttClient
  readonly #stream: MqttClient['stream']
  private readonly reader: PacketReader
  readonly writer: PacketWriter
  private feedback: PublishFeedback | undefined
  private receiver: MessageReceiver | undefined
  private readonly topicAliases = new Map<number, string>()

  constructor(
    client: MqttClient,
    readonly protocolVersion: ProtocolVersion,
    private readonly peer: Pick<Endpoint, 'name' | 'authentication'>,
    private readonly events: LinkEvents,
    maxPacketBytes: number,
  ) {
    this.reader = new PacketReader(client, protocolVersion, maxPacketBytes, this)
    const { stream } = client
    this.#client = client
    this.#stream = stream
    this.writer = new PacketWriter(stream, protocolVersion)
    // With Nagle's algorithm on, a request at QoS 1 waits 40 ms for the delayed TCP acknowledgement of the peer.
    if ('setNoDelay' in stream && typeof stream.setNoDelay === 'function') stream.setNoDelay(true)
    this.listen(client, stream)
  }

  unwrap(): MqttClient {
    return this.#client
  }

  /** @param done sends PUBREC and lets the parser continue */
  stored(done: () => void): void {
    if (this.cause !== undefined) return
    this.parsed = () => done()
    if (!this.isIntakePaused) this.goOn()
  }

  get intakeResumedMs(): number {
    return Math.max(this.resumedMs, this.reader.lag.caughtUpMs)
  }

  get receivedBytes(): number {
    return this.reader.lag.bytes
  }

  get behindSinceMs(): number | undefined {
    return this.reader.lag.behindSinceMs
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

  deliverTo(receiver: MessageReceiver): void {
    this.receiver = receiver
  }

  pauseIntake(): void {
    this.isIntakePaused = true
    this.reader.paused()
  }

  resumeIntake(): void {
    if (!this.isIntakePaused) return
    this.isIntakePaused = false
    this.resumedMs = performance.now()
    this.goOn()
    this.reader.resume()
  }

  /** A PUBLISH at QoS 0 or 1, or a PUBACK, decoded before the parser of `mqtt`. */
  taken(packet: PublishPacket | PubackPacket): void {
    if (packet.cmd === 'publish') return this.receiver?.message(packet, this)
    if (this.writer.unacknowledged > 0) this.writer.unacknowledged -= 1
    this.feedback?.acknowledged(packet)
  }

  get isOpen(): boolean {
    return this.connected && this.cause === undefined
  }

  rejected(cause: MqttError): void {
    if (this.cause === undefined) this.terminate(cause)
  }

  failed(cause: unknown): void {
    this.fail(internalError(cause))
  }

  disconnect(keepsWill: boolean): void {
    if (!keepsWill || this.protocolVersion === 5)
      this.send({ cmd: 'disconnect', reasonCode: keepsWill ? 4 : 0 })
    this.writer.flush()
    this.cause ??= closedError()
    this.#stream.end()
  }

  terminate(cause: MqttError): void {
    if (this.protocolVersion === 5) this.send({ cmd: 'disconnect', reasonCode: cause.reasonCode ?? 0 })
    this.writer.flush()
    this.cause ??= cause
    // Nothing may follow DISCONNECT [MQTT-3.14.4-1].
    this.#stream.end()
    // Leaves a limited time to send DISCONNECT, because the peer may not read.
    setImmediate(() => this.fail(cause))
  }

  destroy(): void {
    this.fail(new MqttError('CONNECTION_CLOSED', 'this application aborted the connection'))
  }

  private listen(client: MqttClient, stream: MqttClient['stream']): void {
    const failed = (error: Error): void => {
      const isParsed = this.reader.isParsing && !('code' in error)
      if (this.isOpen && isParsed)
        this.terminate(malformed(`a malformed packet: ${error.message}`, { cause: error }))
      else this.fail(failureOf(error, this.connected, this.peer.name, this.serverReference, isParsed))
    }
    client.on('error', failed)
    // `mqtt` drops stream errors that have no code.
    stream.on('error', failed)
    client.on('disconnect', packet => this.fail(serverDisconnect(packet)))
    client.on('close', () => this.end())
    client.on('packetsend', ({ cmd }) => {
      if (cmd === 'pingreq') this.feedback?.pinged()
    })
    // MQTT has no half-closed connections, and some streams do not emit 'close' after 'end'.
    stream.on('end', () => this.cause ?? this.fail(hungUp(this.connected, this.peer.name)))
    if (stream.destroyed) setImmediate(() => this.fail(hungUp(this.connected, this.peer.name)))
    stream.on('data', this.reader.take)
    client.on('packetreceive', this.received)
    client.handleMessage = this.take
  }

  private readonly take: MqttClient['handleMessage'] = (packet, done) => {
    // Packets after the end of the connection are discarded, so that the broker delivers them again.
    if (this.cause !== undefined) return done(ACK_LATER)
    if (packet.qos === 2) this.#client.incomingStore.del(packet, ignore)
    try {
      this.receiver?.message(packet, this)
    } catch (cause) {
      this.fail(internalError(cause))
    }
    this.parsed = done
    this.verdict = packet.qos === 1 ? ACK_LATER : undefined
    // `mqtt` emits all packets of a read in one tick. The delay lets fast handlers end between two packets.
    if (!this.isIntakePaused) queueMicrotask(this.goOn)
  }

  private readonly goOn = (): void => {
    const { parsed } = this
    this.parsed = undefined
    parsed?.(this.verdict)
  }

  /** An exception in an event listener of `mqtt` would stop its parser permanently, so it ends the connection instead. */
  private readonly received = (packet: Packet): void => {
    try {
      const fault = this.connected ? undefined : faultOfFirst(packet, this.#client.options)
      if (fault !== undefined) return this.refuse(packet, fault)
      switch (packet.cmd) {
        case 'puback':
        case 'pubcomp':
        case 'pubrec':
          if (packet.cmd !== 'pubrec' && this.writer.unacknowledged > 0) this.writer.unacknowledged -= 1
          return this.feedback?.acknowledged(packet)
        case 'pingresp':
          return this.feedback?.confirmed()
        case 'suback':
        case 'unsuback':
          return this.events.responded(packet)
        case 'publish':
        case 'pubrel':
          return this.check(packet)
        case 'connack':
          return this.accept(packet)
        case 'auth':
          if (this.cause === undefined) authenticate(this.peer.authentication, packet, this)
          Object.assign(packet, REFUSED)
      }
    } catch (cause) {
      this.fail(internalError(cause))
    }
  }

  private accept(packet: IConnackPacket): void {
    this.serverReference = packet.properties?.serverReference
    const { serverKeepAlive } = packet.properties ?? {}
    // `mqtt` emits 'connect' a few turns later, possibly after it has emitted packets that follow CONNACK.
    if (serverKeepAlive !== undefined) this.#client.options.keepalive = serverKeepAlive
    const code = this.protocolVersion === 5 ? packet.reasonCode : packet.returnCode
    if (code !== 0 || this.connected || this.cause !== undefined) return
    const fault = this.peer.authentication?.accepted(packet.properties)
    if (fault !== undefined) return this.terminate(fault)
    this.connected = true
    this.events.connected(sessionOf(packet, this.protocolVersion, this.peer.name))
    // The aliases belong to the packet writer. `mqtt` would create tables for them that nothing uses.
    if (packet.properties !== undefined) packet.properties.topicAliasMaximum = 0
  }

  private check(packet: IPublishPacket | IPubrelPacket): void {
    if (packet.cmd === 'publish' && packet.properties?.topicAlias !== undefined)
      resolveTopicAlias(packet, packet.properties.topicAlias, this.topicAliases)
    const fault = faultOf(packet)
    if (fault !== undefined) return this.refuse(packet, fault)
    if (packet.cmd === 'publish') return packet.qos === 2 ? this.receiveQos2(packet) : undefined
    if (this.protocolVersion === 4) return
    // MQTT 5 has a Reason Code for an unknown identifier (3.7.2.1), but `mqtt` would report success.
    this.#client.incomingStore.get(packet, unknown => {
      if (!unknown) return
      this.send({ cmd: 'pubcomp', messageId: packet.messageId ?? 0, reasonCode: PACKET_IDENTIFIER_NOT_FOUND })
      Object.assign(packet, REFUSED)
    })
  }

  /** Without PUBREC, the broker delivers the message again on the next connection. */
  private receiveQos2(packet: IPublishPacket): void {
    this.#client.incomingStore.get(packet, isNew => {
      if (isNew && this.receiver?.mayStore(this) === false) Object.assign(packet, REFUSED)
    })
  }

  /** Ends the connection. */
  private refuse(packet: Packet, cause: MqttError): void {
    Object.assign(packet, REFUSED)
    if (this.connected) this.terminate(cause)
    else this.fail(cause)
  }

  private fail(cause: MqttError): void {
    // The stream and `mqtt` both report the same stream error.
    const isSame = cause === this.cause || (cause.cause !== undefined && cause.cause === this.cause?.cause)
    if (this.cause !== undefined && !isSame) this.events.noticed(cause)
    this.cause ??= cause
    this.#stream.destroy()
    // Some streams do not emit their end.
    setImmediate(() => this.end())
  }

  private end(): void {
    if (this.isEnded) return
    this.isEnded = true
    this.writer.stop()
    this.reader.lag.stop()
    this.cause ??= hungUp(this.connected, this.peer.name)
    this.peer.authentication?.end(this.cause)
    // The timers of `mqtt` stop with this event, which some streams never cause.
    this.#client.emit('close')
    this.events.closed(this.cause)
  }
}
