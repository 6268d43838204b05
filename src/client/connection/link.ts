import type { IPubackPacket, IPubcompPacket, IPubrecPacket, Packet } from 'mqtt-packet'
import type { ConnectedSession, ProtocolVersion } from '../../core/connection/connection-state.js'
import type { MqttError } from '../../core/errors.js'
import type { OutboundMessage } from '../../core/outbound/outbound-message.js'
import type { PublishPacket, PublishProperties } from '../../core/protocol/packets.js'
import type { TopicAlias } from '../../core/protocol/write-batch.js'
import type { Endpoint } from './endpoint.js'

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

/** Opens network connections: one for every attempt. */
export interface Dialler {
  /** QoS 2 messages that the broker has not released. */
  readonly unreleased: { readonly count: number; readonly bytes: number }
  /** Where the attempt goes and with which credentials. Rejects when that cannot be found out. */
  locate(target: number, reference: string | undefined, protocolVersion: ProtocolVersion): Promise<Endpoint>
  /** May throw. */
  dial(endpoint: Endpoint, protocolVersion: ProtocolVersion, events: LinkEvents): Link
}
