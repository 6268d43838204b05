// Handles the messages of the publishers in a shared group, and responds to requests.
import { setTimeout as wait } from 'node:timers/promises'
import { deadLetter } from 'nestjs-mqtt/client'
import { Actor } from './actor.mjs'
import { OWN_TOPICS, SHARED_TOPICS } from './topics.mjs'

/** A message that is handled again is no first one. Bounded, because a run may be long. */
const MOST_REMEMBERED = 20_000

class Service extends Actor {
  begun = new Set()

  options() {
    return { inbound: { concurrency: 8, maxInFlight: 50, maxQueued: 500 }, outbound: { ackTimeoutMs: 8_000 } }
  }

  prepare(client) {
    const { sharedGroup, publisher, name } = this.role
    const shared = sharedGroup === undefined ? {} : { sharedGroup }
    const options = {
      qos: 1,
      retries: { attempts: 2, delayMs: [20, 100] },
      onFailure: deadLetter(`soak/dead/${name}`),
    }
    const handle = (message, run) => this.handle(message, run)
    for (const topic of SHARED_TOPICS)
      client.subscribe(`soak/pub/+/+/+/${topic}`, handle, { ...options, ...shared })
    for (const topic of OWN_TOPICS) client.subscribe(`soak/pub/+/+/${publisher}/${topic}`, handle, options)
    client.respond('soak/ask', ({ payload }) => this.respond(payload), shared)
    client.respond('soak/count', ({ payload }) => this.count(payload), shared)
  }

  async handle({ payload: { id, kind }, topic }) {
    const { random } = this
    if (!this.begun.has(id)) {
      this.journal.note('B', id, topic)
      this.begun.add(id)
      if (this.begun.size > MOST_REMEMBERED) this.begun.delete(this.begun.values().next().value)
    }
    if (kind === 'poison') throw new Error('this message is poisoned')
    if (kind === 'flaky' && random.chance(0.5)) throw new Error('this attempt fails')
    if (kind === 'slow') await wait(random.between(100, 1_000))
    if (kind === 'asks') await this.ask(id)
    this.journal.note('H', id)
    this.advance('handled')
  }

  /** A request inside a handler, on the same connection. */
  async ask(id) {
    const response = await this.client.request('soak/ask', { id }, { timeoutMs: 2_000 })
    if (response.id !== id) this.violation('requests', `the response to ${id} was for ${response.id}`)
  }

  async respond(payload) {
    if (this.random.chance(0.1)) await wait(this.random.between(10, 300))
    this.advance('responded')
    return payload
  }

  async *count({ to }) {
    for (let number = 1; number <= to; number += 1) {
      yield number
      if (this.random.chance(0.3)) await wait(this.random.between(1, 50))
    }
  }
}

await Actor.begin(Service)
