import { MqttError } from '../../core/errors.js'
import { printable } from '../../core/log-thinning.js'
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

/** `mqtt` would acknowledge a PUBREL without Packet Identifier with a packet that cannot be encoded, and throw. */
export function malformed({ cmd }: Packet): MqttError {
  return new MqttError('CONNECTION_LOST', `the broker sent a malformed ${cmd.toUpperCase()}`)
}

export function tooLarge(bytes: number, maxPacketBytes: number): MqttError {
  const text = `the broker sent a packet of ${bytes} bytes; inbound.maxPacketBytes is ${maxPacketBytes}`
  return new MqttError('CONNECTION_LOST', text, { reasonCode: PACKET_TOO_LARGE })
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
