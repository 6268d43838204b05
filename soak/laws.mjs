// The laws of a run, checked on the journals of all processes after everything has drained.

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
    const publish = { qos: Number(qos), policy, kind, topic, publisher, number, life, outcome: undefined }
    this.publishes.set(`${publisher}:${number}`, publish)
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

  hasEnded({ publisher, life }) {
    return this.lives.get(publisher)?.get(life) === true
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

const isPromised = ({ qos, outcome }) => qos > 0 && (outcome === 'acknowledged' || outcome === 'stored')

/** Drops that leave nothing on the wire. An expired one may have been sent before the connection ended. */
const isUnsent = ({ outcome }) => outcome?.startsWith('dropped:') && outcome !== 'dropped:expired'

/** Each law: what it says, and a generator of its checks: undefined, or what is wrong. */
const LAWS = {
  outcomes: {
    text: 'every publish has exactly one outcome, or was pending when its process was killed',
    *check(evidence) {
      const { publishes, surplus } = evidence
      for (const text of surplus) yield `a further outcome: ${text}`
      for (const [id, publish] of publishes)
        yield publish.outcome === undefined && evidence.hasEnded(publish)
          ? `${id} has none (${publish.topic})`
          : undefined
    },
  },
  delivered: {
    text: 'every acknowledged or stored QoS 1 and 2 message reached the independent subscriber',
    *check({ publishes, witnessed }) {
      for (const [id, publish] of publishes)
        if (isPromised(publish))
          yield witnessed.has(id)
            ? undefined
            : `${id} was ${publish.outcome} and did not arrive (${publish.topic})`
    },
  },
  'exactly once': {
    // Mosquitto 2.0 may send a message to the witness again after a restart, although the witness had sent PUBREC.
    text: 'no QoS 2 message arrived twice, except from the store, or around a restart of the broker',
    *check(evidence) {
      const { publishes, repeatedMs } = evidence
      for (const [id, { qos, policy, topic }] of publishes) {
        if (qos < 2 || policy === 'store') continue
        const repeats = (repeatedMs.get(id) ?? []).filter(atMs => !evidence.isInRestart(atMs))
        yield repeats.length > 0 ? `${id} arrived again (${topic})` : undefined
      }
    },
  },
  dropped: {
    text: 'no message arrived whose outcome says that it was not sent',
    *check({ publishes, witnessed }) {
      for (const [id, publish] of publishes)
        if (isUnsent(publish))
          yield witnessed.has(id) ? `${id} was ${publish.outcome} and arrived` : undefined
    },
  },
  handled: {
    text: 'every acknowledged or stored QoS 1 and 2 message was handled or became a dead letter',
    *check(evidence) {
      const { publishes, handled, deadLetters } = evidence
      for (const [id, publish] of publishes) {
        if (!isPromised(publish) || evidence.hadNoGroup(id, publish)) continue
        const isHandled = handled.has(id) || deadLetters.has(id)
        yield isHandled ? undefined : `${id} was ${publish.outcome} and not handled (${publish.topic})`
      }
    },
  },
  poison: {
    text: 'every poisoned QoS 1 and 2 message became a dead letter, and none counts as handled',
    *check(evidence) {
      const { publishes, handled, deadLetters } = evidence
      for (const [id, publish] of publishes) {
        if (publish.kind !== 'poison') continue
        if (handled.has(id)) yield `${id} was handled`
        else if (isPromised(publish) && !evidence.hadNoGroup(id, publish))
          yield deadLetters.has(id) ? undefined : `${id} has no dead letter (${publish.topic})`
      }
    },
  },
  order: {
    // MQTT orders messages for subscriptions that are not shared (MQTT 5, 4.6): when a member of a group is lost, its
    // messages go to another member, which may have handled later ones.
    text: 'the first copies on each topic arrived, and were handled without a shared group, in the order of the calls',
    *check({ arrivals, begins }) {
      const ordered = [...begins].filter(([topic]) => !isShared(topic))
      for (const [topic, ids] of [...arrivals, ...ordered]) {
        let previous = -1
        for (const id of ids) {
          const number = Number(id.slice(id.indexOf(':') + 1))
          yield number < previous ? `${id} came after ${previous} (${topic})` : undefined
          previous = Math.max(previous, number)
        }
      }
    },
  },
  counters: {
    text: 'stats() counts what the callers saw, and its sums are exact',
    *check({ lives }) {
      for (const all of lives.values()) for (const _life of all) yield undefined
    },
  },
  rows: {
    text: 'no message is left in a store, and none is damaged',
    *check(_evidence, { stores }) {
      for (const { name, messages, setAside } of stores)
        yield messages + setAside > 0
          ? `${name} has ${messages} messages, and ${setAside} set aside`
          : undefined
    },
  },
  requests: { text: 'every request ended, with its own response or an allowed error', *check() {} },
  kills: {
    text: 'every process ended by itself, unless it was killed',
    *check({ lives }, { killed }) {
      for (const [name, all] of lives)
        for (const [life, hasEnded] of all)
          yield hasEnded || killed[name]?.includes(life)
            ? undefined
            : `life ${life} of ${name} did not end by itself`
    },
  },
}

/** @returns for each law its text, the number of checks and what is wrong */
export function judge(evidence, facts) {
  return Object.entries(LAWS).map(([name, { text, check }]) => {
    const broken = evidence.violations.filter(([law]) => law === name).map(([, what]) => what)
    let checks = broken.length
    for (const wrong of check(evidence, facts)) {
      checks += 1
      if (wrong !== undefined) broken.push(wrong)
    }
    return { name, text, checks, broken }
  })
}
