// Subscribes and unsubscribes, reads iterators or leaves them unread, and sends requests.
import { setTimeout as wait } from 'node:timers/promises'
import { isMqttError } from 'nestjs-mqtt/client'
import { Actor } from './actor.mjs'

/** How a request may end while links and processes fail. */
const ALLOWED = [
  'TIMEOUT',
  'ABORTED',
  'CONNECTION_LOST',
  'CONNECTION_CLOSED',
  'NOT_SENT',
  'NO_RESPONDER',
  'REQUEST_FAILED',
  'REQUEST_BLOCKED',
]
const MOST_OPEN = 30

class Consumer extends Actor {
  /** Operations that are under way. */
  underWay = new Set()
  resting = new AbortController()

  options() {
    return { outbound: { ackTimeoutMs: 8_000 }, inbound: { maxQueued: 200 } }
  }

  get openCalls() {
    return this.underWay.size
  }

  async operate() {
    if (this.underWay.size >= MOST_OPEN || this.client.state.status !== 'connected') return
    const { random } = this
    const kinds = ['request', 'request', 'stream', 'subscribe', 'loop', 'unreadLoop', 'publish']
    const kind = random.pick(kinds)
    const operation = this[kind]().catch(error => {
      if (!ALLOWED.some(code => isMqttError(error, code)))
        this.violation('requests', `${kind} failed unexpectedly: ${error?.stack ?? error}`)
    })
    this.underWay.add(operation)
    operation.finally(() => this.underWay.delete(operation))
  }

  start() {
    if (!this.isOperating) this.resting = new AbortController()
    super.start()
  }

  async rested() {
    this.resting.abort()
    await Promise.all(this.underWay)
  }

  async reopen() {
    const { isOperating } = this
    await this.rest()
    await super.reopen()
    if (isOperating) this.start()
  }

  /** Ends early when the process must rest. */
  pause(ms) {
    return wait(ms, undefined, { signal: this.resting.signal }).catch(() => {})
  }

  async request() {
    const { random } = this
    const id = `${this.role.name}:${this.next++}`
    const options = { qos: random.between(0, 1), timeoutMs: random.between(500, 3_000) }
    if (random.chance(0.1)) options.signal = AbortSignal.timeout(random.between(1, 50))
    const response = await this.client.request('soak/ask', { id }, options)
    if (response?.id !== id)
      this.violation('requests', `the response to ${id} was ${JSON.stringify(response)}`)
    this.advance('response')
  }

  async stream() {
    const { random } = this
    const to = random.between(1, 20)
    const last = random.chance(0.5) ? to : random.between(1, to)
    let previous = 0
    for await (const number of this.client.requestStream('soak/count', { to }, { timeoutMs: 3_000 })) {
      // Without a shared group, every service responds.
      if (number <= previous && this.role.isShared)
        this.violation('requests', `a stream yielded ${number} after ${previous}`)
      previous = number
      if (number >= last) break
      if (random.chance(0.1)) await this.pause(random.between(1, 200))
    }
    this.advance('stream')
  }

  async subscribe() {
    const { random } = this
    const filter = `soak/pub/+/${random.between(0, 2)}/+/${random.between(1, 3)}`
    const subscription = this.client.subscribe(filter, () => this.advance('message'), {
      qos: random.between(0, 2),
    })
    await this.pause(random.between(50, 4_000))
    // Confirmed after a reconnect, if the link fails now.
    subscription.unsubscribe().catch(() => {})
  }

  /** A loop that reads, often slowly. */
  async loop() {
    const { random } = this
    const qos = random.between(0, 2)
    // Not AbortSignal.timeout(): Node 20 forgets it if only AbortSignal.any() refers to it.
    const leaving = new AbortController()
    const timer = setTimeout(() => leaving.abort(), random.between(200, 4_000))
    const signal = AbortSignal.any([this.resting.signal, leaving.signal])
    for await (const _message of this.client.messages(`soak/pub/${random.pick(['+', 'queue'])}/${qos}/#`, {
      qos,
      signal,
      limit: 20,
    })) {
      this.advance('read')
      if (random.chance(0.2)) await this.pause(random.between(1, 100))
    }
    clearTimeout(timer)
  }

  /** A loop that nobody reads. */
  async unreadLoop() {
    const { random } = this
    const qos = random.between(0, 1)
    const messages = this.client.messages('soak/pub/#', { qos, limit: 10 })
    await this.pause(random.between(100, 2_000))
    await messages.return()
  }

  async publish() {
    const { random } = this
    await this.client.publish(`soak/own/${this.role.name}`, this.next++, {
      qos: random.between(0, 2),
      timeoutMs: 3_000,
    })
    this.advance('published')
  }
}

await Actor.begin(Consumer)
