// One row: a publisher and its link, each in its own process, and the measurements at the subscriber.
import { setTimeout as sleep } from 'node:timers/promises'
import { Child } from '../child.mjs'
import { PAYLOAD_BYTES, WARM_UP_MS } from './plan.mjs'

const fileOf = name => new URL(name, import.meta.url)
let rows = 0

/** Broker, subscriber and interpreters that every row uses. */
export class Bench {
  constructor({ broker, subscriber, python, ca }) {
    Object.assign(this, { broker, subscriber, python, ca })
  }

  /** A publisher that is connected through its own link and has not started. */
  async connect({ subject, transport, bytesPerSecond, roundTripMs = 0, inboundPerSecond = 0, shape }) {
    rows += 1
    const topic = `age/${rows}`
    const inboundTopic = inboundPerSecond > 0 ? `in/${rows}` : null
    const isTls = transport === 'tls'
    const { child: link, first } = await Child.start(this.python, fileOf('throttled_link.py'), {
      port: isTls ? this.broker.tlsPort : this.broker.port,
      bytesPerSecond,
      roundTripMs,
    })
    const [command, file] =
      subject === 'paho' ? [this.python, 'paho_publisher.py'] : [process.execPath, 'publisher.mjs']
    const started = Child.start(command, fileOf(file), {
      subject,
      port: first.port,
      topic,
      payloadBytes: PAYLOAD_BYTES,
      load: shape,
      ca: isTls ? this.ca : null,
      inboundTopic,
    })
    const { child: publisher, first: greeting } = await started.catch(async error => {
      await link.end()
      throw error
    })
    const inbound = inboundTopic === null ? undefined : await this.#flow(inboundTopic, inboundPerSecond)
    const end = () => Promise.all([publisher.end(), link.end(), inbound?.end()])
    if (greeting.failed !== undefined) {
      await end()
      throw Object.assign(new Error(greeting.failed), { code: greeting.code })
    }
    return { topic, link, publisher, end }
  }

  /** Inbound messages of 1,000 B. */
  async #flow(topic, messagesPerSecond) {
    const { child } = await Child.start(process.execPath, fileOf('../free-uplink/flood.mjs'), {
      port: this.broker.port,
      topic,
      messagesPerSecond,
      payloadBytes: PAYLOAD_BYTES,
    })
    await child.ask({ start: true })
    return child
  }

  /** Runs rows at the same time, and puts `result`, or `failure`, into each. */
  async run(group, seconds) {
    const attempt = async (row, work) => {
      try {
        return await work()
      } catch (error) {
        row.failure = error
      }
    }
    const connected = await Promise.all(group.map(row => attempt(row, () => this.connect(row))))
    await Promise.all(
      group.map(async (row, index) => {
        const parts = connected[index]
        if (parts !== undefined) row.result = await attempt(row, () => this.#observe(row, parts, seconds))
        await parts?.end()
      }),
    )
  }

  async #observe({ bytesPerSecond }, { topic, link, publisher }, seconds) {
    const look = () => Promise.all([publisher.ask(), link.ask()])
    await publisher.ask({ start: true })
    await sleep(WARM_UP_MS)
    const [before, linkBefore] = await look()
    await sleep(seconds * 1_000)
    const [after, linkAfter] = await look()
    const ages = await this.subscriber.ask({ topic, from: linkBefore.at, to: linkAfter.at })
    const linkBytesPerSecond =
      (linkAfter.carried - linkBefore.carried) / ((linkAfter.at - linkBefore.at) / 1_000)
    return {
      ...ages,
      linkBytesPerSecond,
      linkUse: bytesPerSecond === null ? null : linkBytesPerSecond / bytesPerSecond,
      offered: after.offered - before.offered,
      dropped: after.dropped - before.dropped,
      droppedInWarmUp: before.dropped,
      backlogBytes: after.backlogBytes,
      residentGrowthBytes: after.residentBytes - before.residentBytes,
      connectionLosses: after.losses,
    }
  }
}
