// A process with one plain MQTT 3.1.1 connection that records the age of each message on arrival.
import { connect } from 'node:net'
import mqttPacket from 'mqtt-packet'
import { config, nowMs, respondToRequests, say } from '../requests.mjs'

const PUBLISH = 3
const arrivals = new Map()
let rest = Buffer.alloc(0)

/** Start of the body and end of the packet at `at`; undefined if it is incomplete. */
function bounds(bytes, at) {
  let length = 0
  for (let shift = 0, next = at + 1; next < bytes.length; shift += 7) {
    const byte = bytes[next++]
    length += (byte & 127) * 2 ** shift
    if (byte < 128) return next + length <= bytes.length ? { body: next, end: next + length } : undefined
  }
  return undefined
}

function take(chunk) {
  const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
  const arrivedAt = nowMs()
  let at = 0
  for (let packet = bounds(bytes, at); packet !== undefined; packet = bounds(bytes, at)) {
    if (bytes[at] >> 4 === PUBLISH) note(bytes, packet.body, arrivedAt)
    at = packet.end
  }
  rest = bytes.subarray(at)
}

function note(bytes, body, arrivedAt) {
  const payloadAt = body + 2 + bytes.readUInt16BE(body)
  const topic = bytes.toString('latin1', body + 2, payloadAt)
  if (!arrivals.has(topic)) arrivals.set(topic, [])
  arrivals.get(topic).push({ arrivedAt, ageMs: arrivedAt - bytes.readDoubleBE(payloadAt) })
}

/** Figures of what arrived within a span of time; or, with `isList`, all of it. */
function report({ topic, from, to, isList }) {
  const within = (arrivals.get(topic) ?? []).filter(({ arrivedAt }) => arrivedAt >= from && arrivedAt <= to)
  arrivals.delete(topic)
  if (isList) return { messages: within.map(({ arrivedAt, ageMs }) => [arrivedAt, ageMs]) }
  const ages = Float64Array.from(within, ({ ageMs }) => ageMs).sort()
  const quantile = part => ages[Math.max(0, Math.ceil(part * ages.length) - 1)]
  return { delivered: ages.length, p50Ms: quantile(0.5), p99Ms: quantile(0.99), maxMs: quantile(1) }
}

const socket = connect(config.port, '127.0.0.1')
socket.setNoDelay(true)
socket.write(
  mqttPacket.generate({
    cmd: 'connect',
    protocolId: 'MQTT',
    protocolVersion: 4,
    clean: true,
    clientId: 'ages',
    // None: a run may be longer than any, and nothing but bytes of the broker comes this way.
    keepalive: 0,
  }),
)
socket.write(mqttPacket.generate({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: '#', qos: 0 }] }))
// CONNACK and SUBACK have 4 and 5 bytes, and nothing is published before they have arrived.
const GREETING_BYTES = 9
socket.on('data', chunk => {
  if (socket.bytesRead === GREETING_BYTES) say({ ready: true })
  take(chunk)
})
socket.once('close', () => process.exit(1))
respondToRequests(report)
