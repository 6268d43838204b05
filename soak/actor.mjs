// What the publishers, services and consumers of a run have in common: a client, a journal, and calls from the conductor.
import { subscribe } from 'node:diagnostics_channel'
import { readdirSync } from 'node:fs'
import { setTimeout as wait } from 'node:timers/promises'
import { isMqttError, MQTT_CHANNELS, MqttClient } from 'nestjs-mqtt/client'
import { Journal, RecentLog } from './journal.mjs'
import { Random } from './random.mjs'

/** A quiet point is measured this often, at this interval. */
const ROUNDS = 8
const ROUND_MS = 50

/** Time for operations to end, before they count as pending. */
const REST_MS = 20_000

/** Numbers of one process start at `life` times this, so that they ascend over all lives. */
const PER_LIFE = 1_000_000

/** Client of the last `connection` event: the one of this process. */
let observed
subscribe(MQTT_CHANNELS.connection, ({ client }) => {
  observed = client
})

export class Actor {
  progress = {}
  isOperating = false
  operations = Promise.resolve()
  connectedAtMs = 0
  isClosing = false

  constructor(role) {
    this.role = role
    this.random = new Random(role.seed, `${role.name}/${role.life}`)
    this.journal = new Journal(role.journal)
    this.log = new RecentLog(role.log)
    this.next = role.life * PER_LIFE
    this.journal.note('L', role.life)
  }

  // What a kind of actor adds.
  options() {
    return {}
  }
  prepare() {}
  async operate() {}
  async rested() {}
  get openCalls() {
    return 0
  }

  /** The options that every client of a run has. */
  connection() {
    const { role } = this
    return {
      url: role.url,
      clientId: role.name,
      clean: role.clean,
      protocolVersion: role.protocolVersion,
      connect: 'background',
      connectTimeoutMs: 3_000,
      keepalive: 5,
      drainTimeoutMs: 3_000,
      reconnect: { delayMs: [50, 100, 200, 400], resetAfterMs: 0 },
      ...this.options(),
    }
  }

  async open() {
    this.isClosing = false
    this.client = await this.newClient()
    this.client.onState(({ status }) => {
      if (status === 'connected') this.connectedAtMs = Date.now()
    })
    await this.startClient()
  }

  // A client without Nest; the services have a Nest application.
  async newClient() {
    const client = new MqttClient({ ...this.connection(), logger: this.log })
    client.subscribe(`soak/flood/${this.role.name}`, () => this.advance('flood'), { qos: 0, codec: 'bytes' })
    this.prepare(client)
    return client
  }

  startClient() {
    return this.client.start()
  }

  stopClient() {
    return this.client.close()
  }

  advance(kind) {
    this.progress[kind] = (this.progress[kind] ?? 0) + 1
  }

  /** Counts an operation that leaves no other line in the journal. */
  did(operation) {
    this.journal.note('P', operation)
  }

  /**
   * Makes a request, which the journal follows.
   * @param send gets the id of the request, and returns the response: { id, by }
   */
  async ask(kind, limitMs, send) {
    const id = `${this.role.name}:${this.next++}`
    this.journal.note('Q', id, kind, limitMs, Date.now())
    const settle = (...words) => this.journal.note('A', id, Date.now(), ...words)
    try {
      const response = await send(id)
      settle('response', response?.id, response?.by)
    } catch (error) {
      if (isMqttError(error)) settle(error.code, oneLine(error.message))
      else settle('unexpected', oneLine(error?.stack ?? error))
      throw error
    }
  }

  violation(law, text) {
    this.journal.violation(law, `${this.role.name}: ${text}`)
  }

  // The calls of the conductor.

  /** Operations go on until `rest`. */
  start() {
    if (this.isOperating) return
    this.isOperating = true
    this.operations = this.operateUntilRest()
  }

  async operateUntilRest() {
    while (this.isOperating) {
      await this.operate()
      await wait(this.random.between(40, 160))
    }
  }

  async rest() {
    this.isOperating = false
    await this.operations
    await Promise.race([this.rested(), wait(REST_MS, undefined, { ref: false })])
  }

  /** What is not finished. At a quiet point, all of it is 0. */
  pending() {
    const { outbound, inbound, requests, subscriptions, store } = this.client.stats()
    const { inFlight, queued, storing } = outbound
    const { waiting, running, unreleased } = inbound
    return {
      disconnected: this.client.state.status === 'connected' ? 0 : 1,
      calls: this.openCalls,
      ...{ inFlight, queued, storing, waiting, running, unreleased },
      openRequests: requests.open,
      openStreams: requests.openStreams,
      pendingSubscriptions: subscriptions.pending + subscriptions.refused,
      rows: store?.messages ?? 0,
    }
  }

  /** Since when it is connected and has all subscriptions, or 0. A client that closes does not subscribe again. */
  subscribedSinceMs() {
    const { subscriptions } = this.client.stats()
    const isReady = !this.isClosing && this.client.state.status === 'connected' && subscriptions.pending === 0
    return isReady ? this.connectedAtMs : 0
  }

  report() {
    const { user, system } = process.cpuUsage()
    return { progress: this.progress, stats: this.client.stats(), cpuMs: (user + system) / 1_000 }
  }

  recentLog() {
    return this.log.lines.slice(-20)
  }

  /** Closes the client, which drains it, and opens another one. */
  async reopen() {
    this.did('drain')
    await this.closeClient()
    await this.open()
  }

  async closeClient() {
    const { client } = this
    this.isClosing = true
    await this.stopClient()
    await this.settled()
    this.checkCounters(client.stats())
    const { open, openStreams } = client.stats().requests
    if (open + openStreams > 0)
      this.violation('requests', `${open} requests and ${openStreams} streams are open after close()`)
  }

  async settled() {}

  async finish() {
    await this.rest()
    await this.closeClient()
    this.journal.note('E', this.role.life)
    process.disconnect()
  }

  /** Counters that must add up at any moment. */
  checkCounters({ inbound, outbound, store } = this.client.stats()) {
    const sum = (counters, names) => names.reduce((total, name) => total + counters[name], 0)
    const ends = ['handled', 'deadLettered', 'dropped', 'givenBack', 'repeated', 'duplicates']
    const received = sum(inbound, [...ends, 'waiting', 'running'])
    if (inbound.received !== received)
      this.violation(
        'counters',
        `received ${inbound.received}, but its ends are ${received}: ${JSON.stringify(inbound)}`,
      )
    const settled = sum(outbound, ['sent', 'acknowledged', 'refused', 'lost', 'stored'])
    const dropped = Object.values(outbound.dropped).reduce((total, count) => total + count, 0)
    const attempted = settled + dropped + sum(outbound, ['inFlight', 'queued', 'storing'])
    if (outbound.attempted !== attempted)
      this.violation(
        'counters',
        `attempted ${outbound.attempted}, but its ends are ${attempted}: ${JSON.stringify(outbound)}`,
      )
    if (store === undefined) return
    const stored = sum(store, ['delivered', 'refused', 'evicted', 'expired', 'setAside', 'messages'])
    if (store.stored !== stored)
      this.violation(
        'counters',
        `stored ${store.stored}, but its ends are ${stored}: ${JSON.stringify(store)}`,
      )
  }

  /** What a leak would make grow. Called at quiet points. */
  async measure() {
    this.checkCounters()
    // Keep Alive, a renewal or the ping of a link may have a timer at one moment. One that leaks is there at every moment.
    let least = { timers: Number.POSITIVE_INFINITY, handles: Number.POSITIVE_INFINITY }
    for (let round = 0; round < ROUNDS; round += 1) {
      globalThis.gc()
      await wait(ROUND_MS)
      least = leastOf(least, resources())
    }
    const { heapUsed, external } = process.memoryUsage()
    return {
      heapBytes: heapUsed + external,
      ...least,
      descriptors: descriptors(),
      listeners: listeners(this.client),
      slots: observed?.handlerSlots.inUse ?? 0,
      queuedBytes: this.client.stats().inbound.queuedBytes,
      rows: this.client.stats().store?.messages ?? 0,
      subscriptions: this.client.stats().subscriptions.granted,
    }
  }
}

function oneLine(text) {
  return String(text).replaceAll(/\s+/g, ' ')
}

function resources() {
  const all = process.getActiveResourcesInfo()
  const timers = all.filter(name => name === 'Timeout' || name === 'Immediate').length
  return { timers, handles: all.length - timers }
}

function leastOf(one, other) {
  return { timers: Math.min(one.timers, other.timers), handles: Math.min(one.handles, other.handles) }
}

function descriptors() {
  return process.platform === 'linux' ? readdirSync('/proc/self/fd').length : 0
}

function listeners(client) {
  const { parts, observers } = client.session.connection
  const ofProcess = process.eventNames().reduce((sum, name) => sum + process.listenerCount(name), 0)
  return ofProcess + parts.length + observers.size
}
