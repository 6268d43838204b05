// Clients that do everything that the dashboard shows: they publish, drop, handle, fail, repeat, request and respond.
import { once } from 'node:events'
import { createServer } from 'node:net'
import { MqttClient } from 'nestjs-mqtt/client'
import { MqttInstrumentation } from 'nestjs-mqtt/opentelemetry'
import { FaultLink, memoryStore } from 'nestjs-mqtt/testing'

const TEMPERATURE = 'dashboard/rooms/+room/temperature'
const LIMIT = 'dashboard/rooms/+room/limit'
const ALARM = 'dashboard/rooms/+room/alarm'
const JOB = 'dashboard/jobs/+job'
const LETTERS = 'dashboard/dead-letters'
const IMAGE = 'dashboard/cameras/+camera/image'
const THEFT = 'dashboard/cameras/1/theft'

/** The images of a round are more than the link of the camera carries in a second. */
const IMAGES = 12
const IMAGE_BYTES = 10_000
const LINK_BYTES_PER_SECOND = 100_000
const ROOMS = 5
const QOS_1 = { qos: 1 }
const STORED = { ...QOS_1, whenBlocked: 'store' }
const IMAGE_OPTIONS = { ...QOS_1, codec: 'bytes', whenBlocked: 'wait', timeoutMs: 30_000 }

const quiet = { log() {}, warn() {}, error() {}, debug() {} }

/** @param broker `{ url, port }` of an MQTT 5 broker */
export class Load {
  #instrumentation
  #link
  #clients
  #round = 0
  #failedJobs = new Set()

  static async start(broker, meterProvider) {
    const load = new Load()
    load.#instrumentation = new MqttInstrumentation({
      traces: false,
      topics: [TEMPERATURE, LIMIT, ALARM, JOB, IMAGE],
      enabled: false,
    })
    load.#instrumentation.setMeterProvider(meterProvider)
    load.#instrumentation.enable()
    await load.#connect(broker)
    await load.#subscribe()
    return load
  }

  async #connect({ url, port }) {
    this.#link = await FaultLink.start({ port })
    this.#link.throttle(LINK_BYTES_PER_SECOND, 'to-broker')
    const options = { protocolVersion: 5, logger: quiet }
    const worker = {
      ...options,
      url,
      clientId: 'dashboard-worker',
      clean: false,
      reconnect: { delayMs: [1] },
    }
    this.#clients = {
      service: await MqttClient.connect({ ...options, url }),
      worker: await MqttClient.connect(worker),
      camera: await MqttClient.connect({
        ...options,
        url: this.#link.url,
        store: memoryStore(),
        storeAfterMs: 0,
      }),
      offline: await MqttClient.connect({ ...options, url: await closedUrl(), connect: 'background' }),
    }
  }

  async #subscribe() {
    const { service, worker } = this.#clients
    const subscriptions = [
      service.subscribe(TEMPERATURE, () => {}),
      service.subscribe(IMAGE, () => {}, { codec: 'bytes' }),
      service.subscribe(LETTERS, () => {}),
      service.subscribe(ALARM, () => fail('alarm'), { ...QOS_1, onFailure: { deadLetter: LETTERS } }),
      service.respond(LIMIT, ({ payload }) => payload),
      // The broker delivers each job again after the connection has been closed without its acknowledgement.
      worker.subscribe(JOB, ({ topic }) => this.#failOnce(topic), { ...QOS_1, onFailure: 'disconnect' }),
    ]
    await Promise.all(subscriptions.map(subscription => subscription.whenGranted()))
  }

  #failOnce(topic) {
    if (this.#failedJobs.delete(topic)) return
    this.#failedJobs.add(topic)
    fail('job')
  }

  /** Each operation at least once. */
  async round() {
    this.#round += 1
    const { service, worker, camera, offline } = this.#clients
    const images = Array.from({ length: IMAGES }, () =>
      camera.publish('dashboard/cameras/1/image', Buffer.alloc(IMAGE_BYTES), IMAGE_OPTIONS),
    )
    for (let room = 0; room < ROOMS; room += 1) {
      await service.publish(`dashboard/rooms/${room}/temperature`, 21)
      await service.publish(`dashboard/rooms/${room}/temperature`, 21, QOS_1)
    }
    await service.publish('dashboard/rooms/1/alarm', this.#round, QOS_1)
    await service.publish(`dashboard/jobs/${this.#round}`, 1, QOS_1)
    await service.request('dashboard/rooms/1/limit', 25)
    await service.request('dashboard/rooms/nobody', 25, QOS_1).catch(() => {})
    await offline.publish('dashboard/rooms/1/temperature', 21)
    await camera.publish(THEFT, this.#round, STORED)
    await Promise.all(images)
    await worker.whenConnected()
  }

  async stop() {
    await Promise.all(Object.values(this.#clients).map(client => client.close()))
    await this.#link.stop()
    this.#instrumentation.disable()
  }
}

function fail(what) {
  throw new RangeError(`this ${what} fails on purpose`)
}

/** The URL of a port on which nobody listens. */
async function closedUrl() {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  await new Promise(resolve => server.close(resolve))
  return `mqtt://127.0.0.1:${port}`
}
