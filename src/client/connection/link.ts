import type { Socket } from 'node:net'
import type { IClientOptions } from 'mqtt'
import type { IConnackPacket, IPubackPacket, IPubcompPacket, IPubrecPacket, Packet } from 'mqtt-packet'
import type {
  ConnectedSession,
  ConnectionState,
  ProtocolVersion,
} from '../../core/connection/connection-state.js'
import { refusalAdvice } from '../../core/connection/reconnect-rules.js'
import { connectFailure, HUNG_UP } from '../../core/connection/tls-rules.js'
import { describeCause, MqttError, type MqttErrorDetails } from '../../core/errors.js'
import { printable } from '../../core/log-lines.js'
import type { OutboundMessage } from '../../core/outbound/outbound-message.js'
import {
  type BrokerLimits,
  brokerLimits,
  describeReasonCode,
  type PublishPacket,
  type PublishProperties,
} from '../../core/protocol/packets.js'
import type { TopicAlias } from '../../core/protocol/write-batch.js'
import type { MqttCredentials, TlsFileOptions } from '../../options/options.js'
import type { LinkAuthentication } from './authentication.js'

export type { ISubackPacket as SubackPacket, Packet } from 'mqtt-packet'
export type { PublishPacket, PublishProperties }

/** A packet that acknowledges a publish. */
export type AcknowledgingPacket = IPubackPacket | IPubrecPacket | IPubcompPacket

/** Writes the publishes of one connection. */
export interface PublishWriter {
  /** Set to request one call of `flushed` when the network has accepted everything. */
  isFlushAwaited: boolean
  /** Whether the network has not accepted some bytes yet. A packet sent now would wait behind them. */
  isCongested(): boolean
  /** Like `send` of the link, for the most frequent packet. Returns its size in bytes. */
  publish(message: OutboundMessage, messageId: number | undefined, alias: TopicAlias | undefined): number
  /** Size of a message on this connection, in bytes, without a Topic Alias. */
  sizeOf(message: OutboundMessage): number
}

/** Receives what a link reports about the publishes of this client. */
export interface PublishFeedback {
  acknowledged(packet: AcknowledgingPacket): void
  /** PINGRESP arrived. */
  confirmed(): void
  /** A PINGREQ was sent for Keep Alive, without a call of `send`. */
  pinged(): void
  /** The packets of this turn are about to be written. Packets that are sent now are written with them. */
  flushing(): void
  /** The network has accepted everything. Called only if `isFlushAwaited` was set. */
  flushed(): void
}

/** Receives the messages from the broker. */
export interface MessageReceiver {
  /** For QoS 1, the receiver sends PUBACK. */
  message(packet: PublishPacket, link: Link): void
  /** A QoS 2 message arrived. @returns false if it must not be stored, and gets no PUBREC on this connection */
  mayStore(link: Link): boolean
}

/** One network connection to the broker, from the attempt to its end. Not used again after `closed`. */
export interface Link {
  readonly protocolVersion: ProtocolVersion
  /** The client of `mqtt` behind this connection. Its options hold secrets. */
  unwrap(): unknown
  readonly writer: PublishWriter
  /** Sets the receiver of the reports. After the end of the connection nothing is reported. */
  reportTo(feedback: PublishFeedback | undefined): void
  /** Sets the receiver of the messages. */
  deliverTo(receiver: MessageReceiver): void
  /** False if the stream has ended, even before its end is reported. */
  isWritable(): boolean
  /** Encodes a packet. It is written at the end of this turn of the event loop, together with the others. */
  send(packet: Packet): void
  /** Stops reading until `resumeIntake`, including responses from the broker. Keep Alive continues. */
  pauseIntake(): void
  resumeIntake(): void
  readonly isIntakePaused: boolean
  /** Time at which reading last resumed or caught up with the received data. */
  readonly intakeResumedMs: number
  /**
   * Time since which data arrives faster than it is read, so that responses wait unread; undefined if everything is read.
   */
  readonly behindSinceMs: number | undefined
  /** Number of bytes read. */
  readonly receivedBytes: number
  /**
   * Sends DISCONNECT after all earlier packets, and closes the connection. With `keepsWill` the broker publishes the will: DISCONNECT
   * has Reason Code 0x04 on MQTT 5 (3.14.2.1), and is not sent on MQTT 3.1.1.
   */
  disconnect(keepsWill: boolean): void
  /** Sends DISCONNECT with the Reason Code of the cause, and closes the connection at once. */
  terminate(cause: MqttError): void
  /** Closes the connection at once, without DISCONNECT. */
  destroy(): void
}

export interface LinkEvents {
  connected(session: ConnectedSession): void
  /** SUBACK or UNSUBACK arrived. Responses to publishes go to their `PublishFeedback`. */
  responded(packet: Packet): void
  /** The connection has ended. Called once, with the first error. */
  closed(cause: MqttError): void
  /** A later error of a connection that is already ending. */
  noticed(cause: MqttError): void
  /** Something about the connection that will soon be a problem. */
  warned(text: string): void
}

/** Events of a connection. */
export interface ConnectionListener {
  /** CONNACK with success arrived. `link` is good until `lost`. */
  connected?(link: Link, session: ConnectedSession): void
  /** An established connection has ended. */
  lost?(cause: MqttError): void
  /** SUBACK or UNSUBACK arrived. */
  responded?(packet: Packet): void
  /** A later error of a connection that is already ending, for the debug log. */
  noticed?(cause: MqttError): void
  /** Something about the connection that will soon be a problem. */
  warned?(text: string): void
  stateChanged?(state: ConnectionState, before: ConnectionState): void
}

/** Settings of an attempt, after the TLS files are read. */
export type AttemptCredentials = Omit<
  MqttCredentials,
  keyof TlsFileOptions | 'authenticationData' | 'expiresAtMs'
> &
  Pick<TlsFileOptions, 'passphrase'>

/** Address and settings of one attempt. */
export interface Endpoint {
  /** Undefined if the application opens the stream itself. */
  readonly url: string | undefined
  /** Name for logs and errors. */
  readonly name: string
  readonly credentials: AttemptCredentials
  readonly authentication?: LinkAuthentication | undefined
  readonly expiresAtMs?: number | undefined
  /** The socket that the proxy has connected to the broker. Its time counts towards `connectTimeoutMs`. */
  readonly tunnel?: { readonly socket: Socket; readonly tookMs: number }
}

/** Opens network connections, one per attempt. */
export interface Dialler {
  /** QoS 2 messages that the broker has not released. */
  readonly unreleased: { readonly count: number; readonly bytes: number }
  /**
   * Finds the address of the attempt, and its credentials unless they are prepared, and connects through the proxy.
   * Rejects if this fails.
   * @param signal the attempt was abandoned
   */
  locate(
    target: number,
    reference: string | undefined,
    protocolVersion: ProtocolVersion,
    prepared: MqttCredentials | undefined,
    signal: AbortSignal,
  ): Promise<Endpoint>
  /** May throw. */
  dial(endpoint: Endpoint, protocolVersion: ProtocolVersion, events: LinkEvents): Link
}

const MALFORMED_PACKET = 0x81
const PROTOCOL_ERROR = 0x82
const TOPIC_NAME_INVALID = 0x90
const PACKET_TOO_LARGE = 0x95
/** MQTT 5, 3.3.2.1 and 1.5.4. */
const NOT_IN_TOPIC_NAME = /[+#\0]/

/** Describes a packet that a broker must not send before or as CONNACK (MQTT 5, 3.2.0-1 and 3.2.2-4). */
export function faultOfFirst(
  packet: Packet,
  { clean, protocolVersion }: IClientOptions,
): MqttError | undefined {
  if (packet.cmd === 'auth' || packet.cmd === 'disconnect') return undefined
  const isUnwanted = packet.cmd === 'connack' && packet.sessionPresent && clean && protocolVersion === 5
  if (packet.cmd === 'connack' && (!isUnwanted || packet.reasonCode !== 0)) return undefined
  const what = isUnwanted ? 'CONNACK with Session Present' : `${packet.cmd.toUpperCase()} before CONNACK`
  // The cause prevents this from being taken for a broker that rejects MQTT 5 by closing the connection.
  const cause = new Error(
    `the broker sent ${what}${isUnwanted ? ', but CONNECT requested a new session' : ''}`,
  )
  return new MqttError('CONNECT_FAILED', `could not connect: ${cause.message}`, { cause })
}

/** Describes an invalid packet that `mqtt` would accept, or on which it would fail; undefined if the packet is valid. */
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

/** The broker sent bytes that are not a packet of MQTT (MQTT 5, 4.13). */
export function malformed(what: string, details: MqttErrorDetails = {}): MqttError {
  const text = `the broker sent ${what}`
  return new MqttError('CONNECTION_LOST', text, { ...details, reasonCode: MALFORMED_PACKET })
}

export function tooLarge(bytes: number, maxPacketBytes: number): MqttError {
  const text = `the broker sent a packet of ${bytes} bytes; inbound.maxPacketBytes is ${maxPacketBytes}`
  return new MqttError('CONNECTION_LOST', text, { reasonCode: PACKET_TOO_LARGE })
}

/** The session of a connection that the broker has accepted. */
export function sessionOf(
  { sessionPresent, properties }: IConnackPacket,
  protocolVersion: ProtocolVersion,
  broker: string,
): ConnectedSession {
  return { broker, protocolVersion, sessionPresent, limits: brokerLimits(protocolVersion, properties) }
}

type Numbers = 'receiveMaximum' | 'maximumPacketSize' | 'topicAliasMaximum'
type Flags = Exclude<keyof BrokerLimits, Numbers | 'maximumQoS'>

/** Applies the stricter one of each pair of limits. */
export function limited(
  session: ConnectedSession,
  given: Partial<BrokerLimits> | undefined,
): ConnectedSession {
  if (given === undefined) return session
  const { limits } = session
  const both = (name: Flags): boolean => limits[name] && (given[name] ?? true)
  const least = (name: Numbers): number => Math.min(limits[name], given[name] ?? Number.POSITIVE_INFINITY)
  const { maximumQoS = 2 } = given
  const stricter = {
    receiveMaximum: least('receiveMaximum'),
    maximumQoS: maximumQoS < limits.maximumQoS ? maximumQoS : limits.maximumQoS,
    retainAvailable: both('retainAvailable'),
    maximumPacketSize: least('maximumPacketSize'),
    wildcardSubscriptionAvailable: both('wildcardSubscriptionAvailable'),
    subscriptionIdentifiersAvailable: both('subscriptionIdentifiersAvailable'),
    sharedSubscriptionAvailable: both('sharedSubscriptionAvailable'),
    topicAliasMaximum: least('topicAliasMaximum'),
  }
  return { ...session, limits: stricter }
}

/** An error of the stream, or the error of `mqtt` for a CONNACK with a failure Reason Code. */
export function failureOf(
  cause: Error,
  isConnected: boolean,
  target: string,
  serverReference: string | undefined,
  isParsed: boolean,
): MqttError {
  if (isConnected) return new MqttError('CONNECTION_LOST', describeCause(cause), { cause })
  const code = 'code' in cause ? cause.code : undefined
  if (typeof code !== 'number') {
    const text = `could not connect to ${target}: ${connectFailure(cause, isParsed)}`
    return new MqttError('CONNECT_FAILED', text, { cause })
  }
  const text = `${target} refused the connection: ${describeReasonCode(code)}${refusalAdvice(code)}`
  return new MqttError('CONNECT_REFUSED', text, {
    cause,
    reasonCode: code,
    ...(serverReference === undefined ? {} : { serverReference }),
  })
}

/** The broker ended the connection and sent the reason (MQTT 5, 3.14). */
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

/** The connection ended without a DISCONNECT. */
export function hungUp(isConnected: boolean, target: string): MqttError {
  if (isConnected) return new MqttError('CONNECTION_LOST', 'the broker or the network closed the connection')
  return new MqttError('CONNECT_FAILED', `could not connect to ${target}: ${HUNG_UP}`)
}

export function internalError(cause: unknown): MqttError {
  return new MqttError('CONNECTION_LOST', `internal error: ${describeCause(cause)}`, { cause })
}
