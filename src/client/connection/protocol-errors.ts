import { describeCause, MqttError } from '../../core/errors.js'
import { printable } from '../../core/log-lines.js'
import { describeReasonCode } from '../../core/protocol/packets.js'
import type { Packet } from './link.js'

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
