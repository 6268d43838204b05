// What happened in a run.
import { isShared } from './topics.mjs'

/** What the journals say. */
export class Evidence {
  /** Publishes by id: { qos, policy, kind, topic, publisher, number, life, outcome }. */
  publishes = new Map()
  /** Lives by process: life → whether it ended by itself. */
  lives = new Map()
  /** Number of copies that the witness received, by id. */
  witnessed = new Map()
  /** First copies by topic, in order of arrival. */
  arrivals = new Map()
  /** When the first copy arrived, by id. */
  arrivedMs = new Map()
  /** When further copies arrived, by id. */
  repeatedMs = new Map()
  /** Restarts of the broker: [from, to]. */
  restarts = []
  /** Copies of dead letters, by id. */
  deadLetters = new Map()
  /** Successful runs, by id. */
  handled = new Map()
  /** First runs by service and topic. */
  begins = new Map()
  /** Requests by id: { kind, process, life, settlements }. */
  requests = new Map()
  /** Runs of the handlers of requests, by the id of the request. */
  responderRuns = new Map()
  /** Number of operations, by name. */
  operations = new Map()
  /** Connections on which the broker sent a message to a service, and its place in the order of all of them. */
  deliveries = new Map()
  deliveredCount = 0
  /** Violations that a process saw itself: [law, text]. */
  violations = []
  /** Outcomes without a call, or further ones. */
  surplus = []

  constructor(perLife = 1_000_000) {
    this.perLife = perLife
  }

  /** Takes one line of the journal of this process. */
  take(process, line) {
    const [type, ...words] = line.split(' ')
    this[`take${type}`]?.(process, words)
  }

  takeL(process, [life]) {
    const lives = this.lives.get(process) ?? new Map()
    this.lives.set(process, lives.set(Number(life), false))
  }

  takeE(process, [life]) {
    this.lives.get(process).set(Number(life), true)
  }

  takeC(publisher, [text, qos, policy, kind, topic]) {
    const number = Number(text)
    const life = Math.floor(number / this.perLife)
    const publish = {
      qos: Number(qos),
      policy,
      kind,
      topic,
      process: publisher,
      number,
      life,
      outcome: undefined,
    }
    this.publishes.set(`${publisher}:${number}`, publish)
    count(this.operations, `publish ${policy} ${qos}`)
  }

  takeO(publisher, [number, outcome]) {
    const id = `${publisher}:${number}`
    const publish = this.publishes.get(id)
    if (publish === undefined || publish.outcome !== undefined) this.surplus.push(`${id} ${outcome}`)
    else publish.outcome = outcome
  }

  takeW(_process, [id, topic, time]) {
    count(this.witnessed, id)
    if (this.witnessed.get(id) > 1) return void listOf(this.repeatedMs, id).push(Number(time))
    listOf(this.arrivals, topic).push(id)
    this.arrivedMs.set(id, Number(time))
  }

  takeD(_process, [id]) {
    count(this.deadLetters, id)
  }

  takeH(_process, [id]) {
    count(this.handled, id)
  }

  takeB(service, [id, topic]) {
    const key = `${service} ${topic}`
    const seen = this.begins.get(key) ?? new Set()
    this.begins.set(key, seen.add(id))
  }

  takeR(_process, [fromMs, toMs]) {
    this.restarts.push([Number(fromMs), Number(toMs)])
  }

  takeQ(process, [id, kind, limitMs, atMs]) {
    const life = Math.floor(Number(id.slice(id.indexOf(':') + 1)) / this.perLife)
    const request = { kind, process, life, dueMs: Number(atMs) + Number(limitMs), settlements: [] }
    this.requests.set(id, request)
    count(this.operations, `request ${kind}`)
  }

  takeA(_process, [id, atMs, end, ...details]) {
    this.requests.get(id)?.settlements.push({ end, atMs: Number(atMs), details })
  }

  takeS(_process, [id, by]) {
    listOf(this.responderRuns, id).push(by)
  }

  takeP(_process, words) {
    count(this.operations, words.join(' '))
  }

  takeT(_process, [process, connection, id]) {
    const key = `${process} ${id}`
    const places = this.deliveries.get(key) ?? new Map()
    this.deliveries.set(key, places)
    if (!places.has(connection)) places.set(connection, this.deliveredCount++)
  }

  takeV(_process, [law, ...words]) {
    this.violations.push([law, words.join(' ')])
  }

  /** Whether the broker had no Shared Subscription for a message, because it had restarted. */
  hadNoGroup(id, { topic }) {
    return isShared(topic) && this.isInRestart(this.arrivedMs.get(id))
  }

  isInRestart(atMs) {
    return this.restarts.some(([fromMs, toMs]) => atMs >= fromMs && atMs <= toMs)
  }

  /** Whether the broker sent a message to a service before another one, on one connection or for the first time. */
  wasSentBefore(process, id, other) {
    const places = this.deliveries.get(`${process} ${id}`) ?? new Map()
    const others = this.deliveries.get(`${process} ${other}`) ?? new Map()
    const [first = Number.POSITIVE_INFINITY] = places.values()
    const [firstOther = -1] = others.values()
    return (
      first < firstOther || [...places].some(([connection, place]) => place < (others.get(connection) ?? -1))
    )
  }

  /** Whether the process ended by itself, so that nothing may be pending. */
  hasEnded({ process, life }) {
    return this.lives.get(process)?.get(life) === true
  }
}

function count(map, key) {
  map.set(key, (map.get(key) ?? 0) + 1)
}

function listOf(map, key) {
  const list = map.get(key) ?? []
  map.set(key, list)
  return list
}
