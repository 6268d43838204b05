// Publishes numbered messages with QoS 1 at a fixed rate, and writes the outcome of each.
import { setTimeout as wait } from 'node:timers/promises'
import { sqliteStore } from 'nestjs-mqtt/store'
import { begin } from '../soak/remote.mjs'
import { ClusterClient, TOPIC } from './client-process.mjs'

const SETTLE_LIMIT_MS = 60_000

class Publisher extends ClusterClient {
  next = 1
  pending = 0
  /** Number of the last message that the broker has acknowledged. */
  acknowledged = 0
  /** Numbers of stored messages by their ids. */
  stored = new Map()
  /** Final outcomes of stored messages whose publish has not settled yet. */
  early = new Map()

  options() {
    if (this.role.store === undefined) return {}
    return {
      clean: false,
      store: sqliteStore(this.role.store),
      onStoredSettled: ({ messageId, outcome }) => this.endStored(messageId, outcome.status),
    }
  }

  prepare(client) {
    return client.start()
  }

  start() {
    this.timer = setInterval(() => this.publish(), this.role.everyMs)
  }

  publish() {
    const { role, client } = this
    const number = this.next++
    this.pending += 1
    this.journal.note('C', number, Date.now())
    const policy = role.store === undefined ? {} : { whenBlocked: 'store' }
    client
      .publish(`${TOPIC}/${role.name}`, { number, pad: 'x'.repeat(100) }, { qos: 1, ...policy })
      .then(outcome => this.take(number, outcome))
      .finally(() => {
        this.pending -= 1
      })
  }

  take(number, { status, reason, messageId }) {
    this.settle(number, reason === undefined ? status : `${status}:${reason}`)
    if (status !== 'stored') return
    this.stored.set(messageId, number)
    const end = this.early.get(messageId)
    this.early.delete(messageId)
    if (end !== undefined) this.endStored(messageId, end)
  }

  endStored(messageId, end) {
    const number = this.stored.get(messageId)
    if (number === undefined) return this.early.set(messageId, end)
    this.stored.delete(messageId)
    this.settle(number, end)
  }

  settle(number, outcome) {
    this.journal.note('O', number, outcome, Date.now())
    if (outcome === 'acknowledged' || outcome === 'delivered')
      this.acknowledged = Math.max(this.acknowledged, number)
  }

  lastCalled() {
    return this.next - 1
  }

  lastAcknowledged() {
    return this.acknowledged
  }

  /** Ends the load. @returns the number of publishes that have not settled, or are still stored, at the time limit */
  async rest() {
    clearInterval(this.timer)
    const untilMs = performance.now() + SETTLE_LIMIT_MS
    const left = () => this.pending + (this.client.stats().store?.messages ?? 0)
    while (left() > 0 && performance.now() < untilMs) await wait(20)
    return left()
  }
}

await begin(Publisher)
