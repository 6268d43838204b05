// A process that publishes with one of the subjects, and reports the outcomes of its API.
import { readFileSync } from 'node:fs'
import { config, nowMs, respondToRequests, say } from '../requests.mjs'
import { pace } from './pacing.mjs'

const { subject, port, topic, payloadBytes, load, inboundTopic } = config
const url = `${config.ca ? 'mqtts' : 'mqtt'}://127.0.0.1:${port}`
const tls = config.ca ? { ca: readFileSync(config.ca) } : {}

/** A new buffer each time, because a subject may still use the last one. */
function payload() {
  const bytes = Buffer.alloc(payloadBytes)
  bytes.writeDoubleBE(nowMs())
  return bytes
}

async function ours(outbound) {
  await import('reflect-metadata')
  const { NestFactory } = await import('@nestjs/core')
  const { MqttModule, MqttService } = await import('../../dist/index.js')
  const module = MqttModule.forRoot({ url, ...tls, ...(outbound ? { outbound } : {}) })
  const app = await NestFactory.createApplicationContext(
    { module: class Root {}, imports: [module] },
    { logger: false, abortOnError: false },
  )
  const mqtt = app.get(MqttService)
  if (inboundTopic !== null) mqtt.subscribe(inboundTopic, () => {})
  const connected = () => mqtt.state.status === 'connected'
  return {
    send: () => mqtt.tryPublish(topic, payload()),
    // Not the result of tryPublish: an accepted message may be dropped while it waits, and is counted then.
    dropped: () => Object.values(mqtt.stats().outbound.dropped).reduce((sum, count) => sum + count, 0),
    backlogBytes: () =>
      (mqtt.stats().outbound?.queuedBytes ?? 0) + (connected() ? mqtt.unwrap().stream.writableLength : 0),
    losses: () => mqtt.stats().connection.losses,
  }
}

async function plain() {
  const { connectAsync } = await import('mqtt')
  const client = await connectAsync(url, { protocolVersion: 5, ...tls })
  let failed = 0
  const settled = error => {
    if (error) failed += 1
  }
  return {
    send: () => client.publish(topic, payload(), settled),
    dropped: () => failed,
    backlogBytes: () => client.stream.writableLength,
    losses: () => undefined,
  }
}

const subjects = { ours: () => ours(), kernel: () => ours({ flowControl: 'kernel' }), mqtt: plain }

try {
  const { send, dropped, backlogBytes, losses } = await subjects[subject]()
  let offered = 0
  respondToRequests(({ start }) => {
    if (start)
      pace(load, () => {
        offered += 1
        send()
      })
    return {
      offered,
      dropped: dropped(),
      backlogBytes: backlogBytes(),
      residentBytes: process.memoryUsage.rss(),
      losses: losses(),
      at: nowMs(),
    }
  })
  say({ ready: true })
} catch (error) {
  say({ failed: String(error?.message ?? error), code: error?.code })
  process.exit(1)
}
