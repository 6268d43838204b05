import { connect } from 'mqtt'

// A faulty device: it sends a thousand unusable messages a second.

const TICK_MS = 10
const MEGABYTE = 1_000_000
/** The socket may hold this much. Above it, a tick is left out, so that this process stays small. */
const MOST_BYTES = 16_000_000

const [url = '', perSecond = '1000'] = process.argv.slice(2)
const perTick = (Number(perSecond) * TICK_MS) / 1_000
const large = Buffer.alloc(MEGABYTE, 'x')
const client = connect(url, { clientId: 'garbage', reconnectPeriod: 200 })
client.on('error', () => {})

type Message = readonly [topic: string, payload: string | Buffer, qos: 0 | 1]

const ODD_TOPICS = [
  'trucks//telemetry',
  '/',
  'trucks/ü 💥/telemetry',
  `trucks/${'x'.repeat(300)}/alarms`,
  'a/b/c/d/e/f/g',
]
const MESSAGES: readonly Message[] = [
  ['trucks/truck-5/telemetry', '{"celsius":', 0],
  ['trucks/truck-5/telemetry', '[1,2', 0],
  ['trucks/truck-6/telemetry', '{"number":"one","celsius":true}', 0],
  ['trucks/truck-6/telemetry', JSON.stringify({ number: 1, atMs: -1, celsius: 1e9, vibration: [] }), 0],
  ['trucks/truck-6/telemetry', 'null', 0],
  ['trucks/truck-7/telemetry', Buffer.from([0, 255, 254, 0, 128]), 0],
  ['trucks/truck-7/telemetry', '', 0],
  ['trucks/truck-8/alarms', '{"alarmId":7}', 1],
  ['trucks/truck-8/alarms', 'door', 1],
]

let sent = 0
setInterval(() => {
  if (!client.connected || client.stream.writableLength > MOST_BYTES) return
  for (let index = 0; index < perTick; index += 1) send(messageOf(sent))
}, TICK_MS)
setInterval(() => process.send?.(sent), 250)

process.on('SIGINT', () => {})
process.on('message', () => process.exit(0))
process.on('disconnect', () => process.exit(0))

function messageOf(number: number): Message {
  if (number % 200 === 0) return ['trucks/truck-7/telemetry', large, 0]
  if (number % 200 === 100) return ['trucks/truck-8/alarms', large, 1]
  if (number % 10 === 9) return [ODD_TOPICS[((number / 10) % ODD_TOPICS.length) | 0] ?? '/', '{}', 0]
  return MESSAGES[number % MESSAGES.length] ?? ['/', '', 0]
}

function send([topic, payload, qos]: Message): void {
  client.publish(topic, payload, { qos }, () => {})
  sent += 1
}
