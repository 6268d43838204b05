import { performance } from 'node:perf_hooks'
import { MqttClient } from 'nestjs-mqtt/client'

// A faulty device: it sends a number of unusable messages, a thousand a second, and ends.

const TICK_MS = 20
const REPORT_EVERY_MS = 250
const MEGABYTE = 1_000_000
/** Publishes that have not settled. Above it, nothing is sent until the broker has caught up. */
const MOST_OPEN = 200
/** Longest time that is made up for after a pause of this process. */
const LONGEST_PAUSE_MS = 500

/** What was sent, and how long that took. */
export interface Garbage {
  readonly sent: number
  readonly elapsedMs: number
}

type Message = readonly [topic: string, payload: Buffer]

const [url = '', perSecond = '1000', total = '10000'] = process.argv.slice(2)
const large = Buffer.alloc(MEGABYTE, 'x')
const odd = Buffer.from('{}')
const ODD_TOPICS = [
  'trucks//telemetry',
  '/',
  'trucks/ü 💥/telemetry',
  `trucks/${'x'.repeat(300)}/alarms`,
  'a/b/c/d/e/f/g',
]
const SMALL: readonly Message[] = [
  ['trucks/truck-5/telemetry', Buffer.from('{"celsius":')],
  ['trucks/truck-5/telemetry', Buffer.from('[1,2')],
  ['trucks/truck-6/telemetry', Buffer.from('{"number":"one","celsius":true}')],
  ['trucks/truck-6/telemetry', Buffer.from('{"number":1,"atMs":-1,"celsius":1e9,"vibration":[]}')],
  ['trucks/truck-6/telemetry', Buffer.from('null')],
  ['trucks/truck-7/telemetry', Buffer.from([0, 255, 254, 0, 128])],
  ['trucks/truck-7/telemetry', Buffer.alloc(0)],
  ['trucks/truck-8/alarms', Buffer.from('{"alarmId":7}')],
  ['trucks/truck-8/alarms', Buffer.from('door')],
]
/** Two hundred messages, which are sent again and again. */
const MESSAGES = Array.from({ length: 200 }, (_, number) => messageOf(number))

const client = await MqttClient.connect({ url, clientId: 'garbage', connect: 'background' })
let sent = 0
let open = 0
let due = 0
const beganMs = performance.now()
let beforeMs = beganMs

setInterval(tick, TICK_MS)
setInterval(report, REPORT_EVERY_MS)

process.on('SIGINT', () => {})
process.on('message', () => process.exit(0))
process.on('disconnect', () => process.exit(0))

function tick(): void {
  const nowMs = performance.now()
  due += (Math.min(LONGEST_PAUSE_MS, nowMs - beforeMs) * Number(perSecond)) / 1_000
  beforeMs = nowMs
  for (; due >= 1 && open < MOST_OPEN && sent < Number(total); due -= 1)
    void send(MESSAGES[sent % MESSAGES.length] ?? ['/', odd])
  due = Math.min(due, Number(perSecond))
  if (sent === Number(total) && open === 0) end()
}

function report(): void {
  const garbage: Garbage = { sent, elapsedMs: performance.now() - beganMs }
  process.send?.(garbage)
}

function end(): void {
  report()
  process.disconnect()
}

function messageOf(number: number): Message {
  if (number === 0) return ['trucks/truck-7/telemetry', large]
  if (number === 100) return ['trucks/truck-8/alarms', large]
  if (number % 10 === 9) return [ODD_TOPICS[((number / 10) | 0) % ODD_TOPICS.length] ?? '/', odd]
  return SMALL[number % SMALL.length] ?? ['/', odd]
}

async function send([topic, payload]: Message): Promise<void> {
  sent += 1
  open += 1
  await client.publish(topic, payload, { whenBlocked: 'wait' })
  open -= 1
}
