// Subscribes and unsubscribes, reads iterators or leaves them unread, and sends requests.
import { setTimeout as wait } from 'node:timers/promises'
import { isMqttError } from 'nestjs-mqtt/client'
import { Actor } from './actor.mjs'
import { begin } from './remote.mjs'

/** Allowed errors of an operation while links and processes fail. The laws define how a request may end. */
const ALLOWED = ['TIMEOUT', 'ABORTED', 'CONNECTION_LOST', 'CONNECTION_CLOSED', 'NOT_SENT']
const REQUESTS = ['request', 'stream']
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
      if (!REQUESTS.includes(kind) && !ALLOWED.some(code => isMqttError(error, code)))
        this.violation('operations', `${kind} failed unexpectedly: ${error?.stack ?? error}`)
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

  /** Ends early when the process must rest. */
  pause(ms) {
    return wait(ms, undefined, { signal: this.resting.signal }).catch(() => {})
  }

  async request() {
    const { random, client } = this
    const qos = random.between(0, 1)
    const timeoutMs = random.between(500, 3_000)
    const options = { qos, timeoutMs }
    if (random.chance(0.1)) options.signal = AbortSignal.timeout(random.between(1, 50))
    await this.ask(`qos${qos}`, timeoutMs, id => client.request('soak/ask', { id }, options))
    this.advance('response')
  }

  async stream() {
    const { random } = this
    const qos = random.between(0, 1)
    const to = random.between(1, 20)
    const last = random.chance(0.5) ? to : random.between(1, to)
    // The time limit applies to each value. The reader pauses between values.
    await this.ask(`stream-qos${qos}`, 3_000 * (to + 1), id => this.read({ id, qos, to, last }))
    if (last < to) this.did('stream that is left early')
    this.advance('stream')
  }

  /** @returns the source of all values, or of the first one that has another source */
  async read({ id, qos, to, last }) {
    const { random, client } = this
    let previous = 0
    let source
    for await (const value of client.requestStream('soak/count', { id, to }, { qos, timeoutMs: 3_000 })) {
      source ??= value
      if (value.id !== id || value.by !== source.by) return value
      // When the connection of the service ends, values are lost at QoS 0, which the end reports, and repeated at QoS 1.
      const isWrong = qos === 0 ? value.number <= previous : value.number > previous + 1
      if (isWrong)
        this.violation('requests', `the stream ${id} at QoS ${qos} yielded ${value.number} after ${previous}`)
      previous = Math.max(previous, value.number)
      if (previous >= last) return source
      if (random.chance(0.1)) await this.pause(random.between(1, 200))
    }
    this.violation('requests', `the stream ${id} at QoS ${qos} ended after ${previous} of ${to} values`)
    return source
  }

  async subscribe() {
    const { random } = this
    const filter = `soak/pub/+/${random.between(0, 2)}/+/${random.between(1, 3)}`
    const subscription = this.client.subscribe(filter, () => this.advance('message'), {
      qos: random.between(0, 2),
    })
    this.did('subscribe')
    await this.pause(random.between(50, 4_000))
    // Confirmed after a reconnect, if the link fails now.
    subscription.unsubscribe().then(
      () => this.did('unsubscribe'),
      () => {},
    )
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
    this.did('read iterator')
  }

  /** A loop that nobody reads. */
  async unreadLoop() {
    const { random } = this
    const qos = random.between(0, 1)
    const messages = this.client.messages('soak/pub/#', { qos, limit: 10 })
    await this.pause(random.between(100, 2_000))
    await messages.return()
    this.did('unread iterator')
  }

  async publish() {
    const { random } = this
    await this.client.publish(`soak/own/${this.role.name}`, this.next++, {
      qos: random.between(0, 2),
      timeoutMs: 3_000,
    })
    this.did('own publish')
    this.advance('published')
  }
}

await begin(Consumer)
