import type { IPubackPacket, IPubcompPacket, IPubrecPacket, Packet } from 'mqtt-packet'
import type { ConnectedSession, ProtocolVersion } from '../../core/connection/connection-state.js'
import { describeCause, MqttError } from '../../core/errors.js'
import { printable } from '../../core/log-lines.js'
import type { OutboundMessage } from '../../core/outbound/outbound-message.js'
import {
  describeReasonCode,
  type PublishPacket,
  type PublishProperties,
} from '../../core/protocol/packets.js'
import type { TopicAlias } from '../../core/protocol/write-batch.js'
import type { MqttCredentials, TlsFileOptions } from '../../options/options.js'

export type { ISubackPacket as SubackPacket, Packet } from 'mqtt-packet'
export type { PublishPacket, PublishProperties }

/** A packet that acknowledges a publish. */
export type AcknowledgingPacket = IPubackPacket | IPubrecPacket | IPubcompPacket

/** Writes the publishes of one connection. */
export interface PublishWriter {
  /** `flushed` is told once more, when the network has taken everything. */
  isAwaited: boolean
  /** Whether bytes wait that the network has not taken. What is sent now would wait behind them. */
  isCongested(): boolean
  /** As `send` of the link, for the most frequent packet. Returns its size in bytes. */
  publish(message: OutboundMessage, messageId: number | undefined, alias: TopicAlias | undefined): number
  /** Size of a message on this connection, in bytes, without a Topic Alias. */
  sizeOf(message: OutboundMessage): number
}

/** Where a link reports what concerns the publishes of this client. */
export interface PublishFeedback {
  acknowledged(packet: AcknowledgingPacket): void
  /** PINGRESP came. */
  confirmed(): void
  /** A PINGREQ was sent that was not asked for by `send`: Keep Alive. */
  pinged(): void
  /** What was sent in this turn is about to leave; what is sent now leaves with it. */
  flushing(): void
  /** The network has taken everything, and somebody waited for that. */
  flushed(): void
}

/** Takes the messages of the broker. */
export interface MessageReceiver {
  /** For QoS 1 the PUBACK is left to the receiver. */
  message(packet: PublishPacket, link: Link): void
  /** A QoS 2 message came, and waits for its PUBREL. */
  stored(link: Link): void
}

/** One network connection to the broker, from dialling to its end. Never used again after `closed`. */
export interface Link {
  readonly protocolVersion: ProtocolVersion
  /** The client of `mqtt` behind this connection. Its options hold secrets. */
  unwrap(): unknown
  readonly writer: PublishWriter
  /** Reports to this one from now on; nobody after the end of the connection. */
  reportTo(feedback: PublishFeedback | undefined): void
  /** Hands messages to this one from now on. */
  deliverTo(receiver: MessageReceiver): void
  /** False when the stream has ended, though its end was not announced yet. */
  isWritable(): boolean
  /** Encodes a packet; it leaves at the end of this turn of the event loop, together with the others. */
  send(packet: Packet): void
  /** Nothing is read until `resumeIntake`, responses of the broker included; Keep Alive goes on. */
  pauseIntake(): void
  resumeIntake(): void
  readonly isIntakePaused: boolean
  /** When reading was resumed, or caught up with what had arrived, last. */
  readonly intakeResumedMs: number
  /** Since when more arrives than is read, so that responses wait unread; undefined when everything is read. */
  readonly behindSinceMs: number | undefined
  /** Bytes that were read. */
  readonly receivedBytes: number
  /** Sends DISCONNECT behind everything before it, and ends. */
  disconnect(): void
  /** Sends DISCONNECT with the Reason Code of the cause, and ends at once. */
  hangUp(cause: MqttError): void
  /** Ends at once, without DISCONNECT. */
  destroy(): void
}

export interface LinkEvents {
  connected(session: ConnectedSession): void
  /** SUBACK or UNSUBACK. What responds to publishes goes to their `PublishFeedback`. */
  responded(packet: Packet): void
  /** The end, once, with the first thing that went wrong. */
  closed(cause: MqttError): void
  /** What else went wrong with a connection that is ending already. */
  noticed(cause: MqttError): void
}

/** What an attempt is made with, once the TLS files are read. */
export type AttemptCredentials = Omit<MqttCredentials, keyof TlsFileOptions> &
  Pick<TlsFileOptions, 'passphrase'>

/** Where one attempt goes, and with what. */
export interface Endpoint {
  /** Undefined where the application opens the stream itself. */
  readonly url: string | undefined
  /** As a log or an error names it. */
  readonly name: string
  readonly credentials: AttemptCredentials
}

/** Opens network connections: one for every attempt. */
export interface Dialler {
  /** QoS 2 messages that the broker has not released. */
  readonly unreleased: { readonly count: number; readonly bytes: number }
  /** Where the attempt goes and with which credentials. Rejects when that cannot be found out. */
  locate(target: number, reference: string | undefined, protocolVersion: ProtocolVersion): Promise<Endpoint>
  /** May throw. */
  dial(endpoint: Endpoint, protocolVersion: ProtocolVersion, events: LinkEvents): Link
}

const MALFORMED_PACKET = 0x81
const PROTOCOL_ERROR = 0x82
const TOPIC_NAME_INVALID = 0x90
const PACKET_TOO_LARGE = 0x95
/** MQTT 5, 3.3.2.1 and 1.5.4. */
const NOT_IN_TOPIC_NAME = /[+#\0]/

/** Whether a broker may send this before or as CONNACK (MQTT 5, 3.2.0-1). */
export function mayBeFirst({ cmd }: Packet): boolean {
  return cmd === 'connack' || cmd === 'auth' || cmd === 'disconnect'
}

export function tooEarly({ cmd }: Packet): MqttError {
  // With a cause it is not taken for a broker that hung up on MQTT 5.
  const cause = new Error(`the broker sent ${cmd.toUpperCase()} before CONNACK`)
  return new MqttError('CONNECT_FAILED', `could not connect: ${cause.message}`, { cause })
}

/** What is wrong with a packet that `mqtt` would take, or fail at; undefined if nothing is. */
export function faultOf(packet: Extract<Packet, { cmd: 'publish' | 'pubrel' }>): MqttError | undefined {
  const needsIdentifier = packet.cmd === 'pubrel' || packet.qos > 0
  if (needsIdentifier && !((packet.messageId ?? 0) > 0))
    return fault(packet, 'without a Packet Identifier', PROTOCOL_ERROR)
  if (packet.cmd === 'pubrel') return undefined
  const { topic } = packet
  if (topic === '') return fault(packet, 'with an empty Topic Name', PROTOCOL_ERROR)
  if (!NOT_IN_TOPIC_NAME.test(topic)) return undefined
  const name = `with the Topic Name ${printable(topic)}, which contains`
  if (topic.includes('\u0000')) return fault(packet, `${name} U+0000`, MALFORMED_PACKET)
  return fault(packet, `${name} a wildcard`, TOPIC_NAME_INVALID)
}

function fault({ cmd }: Packet, what: string, reasonCode: number): MqttError {
  return new MqttError('CONNECTION_LOST', `the broker sent ${cmd.toUpperCase()} ${what}`, { reasonCode })
}

export function tooLarge(bytes: number, maxPacketBytes: number): MqttError {
  const text = `the broker sent a packet of ${bytes} bytes; inbound.maxPacketBytes is ${maxPacketBytes}`
  return new MqttError('CONNECTION_LOST', text, { reasonCode: PACKET_TOO_LARGE })
}

export function lostBy(cause: Error): MqttError {
  return new MqttError('CONNECTION_LOST', describeCause(cause), { cause })
}

/** An error before CONNACK, or the one that `mqtt` makes of a CONNACK whose Reason Code is not success. */
export function connectFailed(cause: Error, target: string, serverReference: string | undefined): MqttError {
  const reasonCode = 'code' in cause && typeof cause.code === 'number' ? cause.code : undefined
  if (reasonCode === undefined)
    return new MqttError('CONNECT_FAILED', `could not connect to ${target}: ${describeCause(cause)}`, {
      cause,
    })
  const text = `${target} refused the connection: ${describeReasonCode(reasonCode)}`
  return new MqttError('CONNECT_REFUSED', text, {
    cause,
    reasonCode,
    ...(serverReference === undefined ? {} : { serverReference }),
  })
}

/** The broker ended the connection and said why (MQTT 5, 3.14). */
export function serverDisconnect({
  reasonCode = 0,
  properties,
}: Extract<Packet, { cmd: 'disconnect' }>): MqttError {
  const said = properties?.reasonString === undefined ? '' : `, ${printable(properties.reasonString)}`
  const text = `the broker sent DISCONNECT: ${describeReasonCode(reasonCode)}${said}`
  const reference = properties?.serverReference
  return new MqttError('CONNECTION_LOST', text, {
    reasonCode,
    ...(reference === undefined ? {} : { serverReference: reference }),
  })
}

/** The connection ended without a word. */
export function hungUp(isConnected: boolean, target: string): MqttError {
  if (isConnected) return new MqttError('CONNECTION_LOST', 'the broker or the network closed the connection')
  const text = `could not connect to ${target}: the connection was closed before CONNACK`
  return new MqttError('CONNECT_FAILED', text)
}

export function internalError(cause: unknown): MqttError {
  return new MqttError('CONNECTION_LOST', `internal error: ${describeCause(cause)}`, { cause })
}
