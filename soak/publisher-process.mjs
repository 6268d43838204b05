// Publishes numbered messages with every QoS and every policy.
import { setTimeout as wait } from 'node:timers/promises'
import { sqliteStore } from 'nestjs-mqtt/store'
import { Actor } from './actor.mjs'
import { begin } from './remote.mjs'
import { POLICIES, TOPICS } from './topics.mjs'

const SETTLE_MS = 15_000
/** The longest wait for a store to drain its backlog. */
const DRAINING_MS = 5_000
const POLL_MS = 5
/** How the handler of a message behaves. */
const KINDS = [
  ...Array(80).fill('ok'),
  ...Array(8).fill('slow'),
  ...Array(6).fill('flaky'),
  ...Array(3).fill('asks'),
  'poison',
  'poison',
]

class Publisher extends Actor {
  options() {
    return {
      store: sqliteStore(this.role.store),
      storeAfterMs: this.random.pick([0, 20, 200]),
      outbound: { maxDelayMs: 500, maxAgeMs: 4_000, maxQueued: 100, ackTimeoutMs: 8_000 },
    }
  }

  prepare() {
    this.tally = { calls: 0, open: 0, ends: {} }
  }

  get openCalls() {
    return this.tally.open
  }

  async operate() {
    for (let left = this.random.between(1, 5); left > 0; left -= 1) this.publish()
  }

  publish({ policy, qos } = this.anyPolicy(), kind = this.random.pick(KINDS)) {
    const { random, role, tally, client } = this
    const topic = `soak/pub/${policy}/${qos}/${role.name}/${random.pick(TOPICS)}`
    const number = this.next++
    const payload = { id: `${role.name}:${number}`, kind, pad: 'x'.repeat(random.between(0, 400)) }
    tally.calls += 1
    tally.open += 1
    this.journal.note('C', number, qos, policy, kind, topic)
    client.publish(topic, payload, { qos, whenBlocked: policy, ...this.terms(policy) }).then(
      outcome => this.settle({ tally, number, policy, qos }, outcome),
      error => {
        tally.open -= 1
        this.violation('outcomes', `publish ${number} rejected: ${error.message}`)
      },
    )
  }

  anyPolicy() {
    const { policy, qos } = this.random.pick(POLICIES)
    return { policy, qos: this.random.pick(qos) }
  }

  /** Publishes this number of messages for the store. Called while there is no link. */
  backlog(count) {
    this.did('backlog in a store')
    for (let left = count; left > 0; left -= 1)
      this.publish({ policy: 'store', qos: this.random.between(1, 2) }, 'ok')
  }

  /** Resolves when the store sends its backlog, and some of it waits for an acknowledgement. @returns false if it does not */
  async draining() {
    const untilMs = performance.now() + DRAINING_MS
    while (performance.now() < untilMs) {
      const { outbound, store } = this.client.stats()
      if (this.client.state.status === 'connected' && outbound.inFlight > 0 && store.messages > 0) return true
      await wait(POLL_MS)
    }
    return false
  }

  /** A publish that waits has a limit, so that it ends in an outage too. */
  terms(policy) {
    const { random } = this
    if (policy === 'wait')
      return random.chance(0.7)
        ? { timeoutMs: random.between(500, 6_000) }
        : { signal: AbortSignal.timeout(random.between(500, 6_000)) }
    return policy !== 'store' && random.chance(0.05) ? { timeoutMs: random.between(1, 2_000) } : {}
  }

  settle({ tally, number, policy, qos }, { status, reason }) {
    const end = reason === undefined ? status : `${status}:${reason}`
    this.journal.note('O', number, end)
    tally.open -= 1
    tally.ends[end] = (tally.ends[end] ?? 0) + 1
    // A stored message is delivered later. The store must be empty at the next quiet point.
    if (['sent', 'acknowledged', 'stored'].includes(status)) this.advance(`${policy} ${qos}`)
  }

  async rested() {
    await this.settled()
  }

  async settled() {
    const { tally } = this
    const untilMs = performance.now() + SETTLE_MS
    while (tally.open > 0 && performance.now() < untilMs) await wait(10)
  }

  /** The counters of a client that has settled all publishes are those of the outcomes. */
  checkCounters(stats = this.client.stats()) {
    super.checkCounters(stats)
    const { calls, open, ends } = this.tally
    const { attempted, sent, acknowledged, refused, lost, stored, dropped } = stats.outbound
    if (open > 0) return this.violation('outcomes', `${open} publishes have no outcome`)
    const counted = { attempted, sent, acknowledged, refused, lost, stored }
    for (const [reason, count] of Object.entries(dropped)) counted[`dropped:${reason}`] = count
    for (const [name, count] of Object.entries(counted)) {
      const seen = name === 'attempted' ? calls : (ends[name] ?? 0)
      if (count !== seen) this.violation('counters', `stats() counts ${count} "${name}", the callers ${seen}`)
    }
  }
}

await begin(Publisher)
