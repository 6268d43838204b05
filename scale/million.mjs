// A calculation from figures of this run. Nothing here was run with a million devices.
import mqttPacket from 'mqtt-packet'
import { table } from '../soak/tables.mjs'

const DEVICES = [10_000, 100_000, 1_000_000]
/** Every device sends one reading per period. */
const PERIOD_SECONDS = 60
const PAYLOAD_BYTES = 100
/** IPv4 and TCP with timestamps. */
const HEADER_BYTES = 52
/** Share of a core that may be used, so that there is room for peaks and restarts. */
const MOST_USE = 0.7
const TOPIC = 'scale/devices/123456789012/reading'

const sizeOf = packet => mqttPacket.generate(packet, { protocolVersion: 5 }).length

/** Bytes on the network for one reading at QoS 1, between a device and the broker: PUBLISH, PUBACK and a TCP acknowledgement. */
export function bytesOfReading() {
  const publish = sizeOf({
    cmd: 'publish',
    topic: TOPIC,
    payload: Buffer.alloc(PAYLOAD_BYTES),
    qos: 1,
    messageId: 1,
  })
  const puback = sizeOf({ cmd: 'puback', messageId: 1, reasonCode: 0 })
  return { publish, puback, network: publish + puback + 3 * HEADER_BYTES }
}

/**
 * @param figures `connectionBytes`, `subscriptionBytes` and `connectMicros` of a broker; `brokerMicros` and `serviceMicros` of
 * one message
 */
function estimate(devices, figures) {
  const { connectionBytes, subscriptionBytes, connectMicros, brokerMicros, serviceMicros } = figures
  const perSecond = devices / PERIOD_SECONDS
  const processes = Math.max(2, Math.ceil((perSecond * serviceMicros) / 1e6 / MOST_USE))
  const brokerCores = (perSecond * brokerMicros) / 1e6 / MOST_USE
  return {
    devices,
    connections: devices + processes,
    subscriptions: devices + processes,
    perSecond,
    megabits: (perSecond * bytesOfReading().network * 8) / 1e6,
    brokerMegabytes: (devices * (connectionBytes + subscriptionBytes)) / 1e6,
    brokerCores,
    processes,
    reconnectSeconds: (devices * connectMicros) / 1e6 / MOST_USE,
  }
}

export function millionTable(figures) {
  const rows = DEVICES.map(devices => estimate(devices, figures))
  const line = (name, cell) => [name, ...rows.map(cell)]
  const whole = value => Math.round(value).toLocaleString('en')
  return table([
    line('devices', row => whole(row.devices)),
    line('connections', row => whole(row.connections)),
    line('subscriptions', row => whole(row.subscriptions)),
    line('messages per second', row => whole(row.perSecond)),
    line('Mbit/s between devices and brokers', row => row.megabits.toFixed(1)),
    line('broker memory, MB', row => whole(row.brokerMegabytes)),
    line('broker cores', row => row.brokerCores.toFixed(2)),
    line('service cores, at least 2', row => row.processes),
    line('seconds of a broker core until all have reconnected', row => whole(row.reconnectSeconds)),
  ])
}
