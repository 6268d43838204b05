import { describeCause, MqttError } from '../../core/errors.js'
import { printable } from '../../core/log-lines.js'
import { describeReasonCode } from '../../core/protocol/packets.js'
import type { Packet } from './link.js'

const PACKET_TOO_LARGE = 0x95

/** Whether a broker may send this before or as CONNACK (MQTT 5, 3.2.0-1). */
export function mayBeFirst({ cmd }: Packet): boolean {
  return cmd === 'connack' || cmd === 'auth' || cmd === 'disconnect'
}

export function tooEarly({ cmd }: Packet): MqttError {
  // With a cause it is not taken for a broker that hung up on MQTT 5.
  const cause = new Error(`the broker sent ${cmd.toUpperCase()} before CONNACK`)
  return new MqttError('CONNECT_FAILED', `could not connect: ${cause.message}`, { cause })
}

/** Whether the Packet Identifier is missing; they begin with 1 (MQTT 5, 2.2.1). */
export function isMalformed(packet: Extract<Packet, { cmd: 'publish' | 'pubrel' }>): boolean {
  return (packet.cmd === 'pubrel' || packet.qos > 0) && !((packet.messageId ?? 0) > 0)
}

/** `mqtt` would acknowledge a PUBREL without Packet Identifier with a packet that cannot be encoded, and throw. */
export function malformed({ cmd }: Packet): MqttError {
  return new MqttError('CONNECTION_LOST', `the broker sent a malformed ${cmd.toUpperCase()}`)
}

export function tooLarge(bytes: number, maxPacketBytes: number): MqttError {
  const text = `the broker sent a packet of ${bytes} bytes; inbound.maxPacketBytes is ${maxPacketBytes}`
  return new MqttError('CONNECTION_LOST', text, { reasonCode: PACKET_TOO_LARGE })
}

/** CONNACK with a Reason Code that is not success. */
export function refusedConnect(
  target: string,
  reasonCode: number,
  serverReference: string | undefined,
  cause: Error,
): MqttError {
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
