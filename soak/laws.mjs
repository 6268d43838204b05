// The laws of a run, checked on the journals of all processes after everything has drained.

import { OPERATIONS } from './operations.mjs'
import { isShared } from './topics.mjs'

/** How a request may end while links and processes fail. */
const REQUEST_ENDS = new Set([
  'response',
  'TIMEOUT',
  'ABORTED',
  'CONNECTION_LOST',
  'CONNECTION_CLOSED',
  'NOT_SENT',
  'NO_RESPONDER',
  'REQUEST_FAILED',
  'RESPONSE_LOST',
  'REQUEST_BLOCKED',
])
const STREAM_ENDED = 'the responder is closing'
/** A request may settle this much later than its time limit, because the machine is busy. */
const REQUEST_SLACK_MS = 10_000

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
    // messages go to another member, which may have handled later ones. Mosquitto 2.0 may send a new message before those
    // that wait in the queue of a session, although they are on the same topic.
    text: 'the first copies on each topic arrived in the order of the calls, and were handled in that order, or in that of the broker',
    *check(evidence) {
      const { arrivals, begins } = evidence
      for (const [topic, ids] of arrivals)
        for (const [id, before] of misplaced(ids)) yield wrongOrder(id, before, topic)
      for (const [key, ids] of begins) {
        if (isShared(key)) continue
        const [service] = key.split(' ')
        for (const [id, before] of misplaced(ids))
          yield before !== undefined && !evidence.wasSentBefore(service, before, id)
            ? wrongOrder(id, before, key)
            : undefined
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
      for (const { name, messages, setAside, error } of stores)
        if (error !== undefined) yield `${name} cannot be read: ${error}`
        else
          yield messages + setAside > 0
            ? `${name} has ${messages} messages, and ${setAside} set aside`
            : undefined
    },
  },
  requests: {
    text: 'every request settled once and in time: with the response of a run for it, its error, or an error of the client',
    *check(evidence) {
      const { requests, responderRuns } = evidence
      for (const [id, request] of requests) {
        if (request.settlements.length === 0) {
          yield evidence.hasEnded(request) ? `${id} (${request.kind}) did not settle` : undefined
          continue
        }
        for (const settlement of request.settlements) yield wrongEnd(id, request.kind, settlement, evidence)
        const [{ atMs }, ...further] = request.settlements
        if (further.length > 0) yield `${id} settled ${1 + further.length} times`
        const lateMs = atMs - request.dueMs
        if (lateMs > REQUEST_SLACK_MS) yield `${id} settled ${lateMs} ms after its time limit`
      }
      for (const id of responderRuns.keys())
        if (!requests.has(id)) yield `a handler ran for ${id}, which nobody has sent`
    },
  },
  responders: {
    // A requester subscribes its response topic, and a service its request topics, at QoS 0.
    text: 'no handler ran twice for one request that was sent at QoS 0',
    *check({ requests, responderRuns }) {
      for (const [id, { kind }] of requests) {
        const runs = responderRuns.get(id)?.length ?? 0
        if (runs > 0 && !kind.endsWith('qos1'))
          yield runs > 1 ? `${runs} runs for ${id} (${kind})` : undefined
      }
    },
  },
  operations: {
    text: 'every kind of operation was performed, and none failed in an unexpected way',
    *check({ operations }) {
      for (const name of OPERATIONS) yield operations.has(name) ? undefined : `"${name}" was not performed`
    },
  },
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

/** Yields each message, with one before it whose number is larger, if there is one. */
function* misplaced(ids) {
  const numberOf = id => Number(id.slice(id.indexOf(':') + 1))
  let last
  for (const id of ids) {
    const isInOrder = last === undefined || numberOf(id) > numberOf(last)
    yield [id, isInOrder ? undefined : last]
    if (isInOrder) last = id
  }
}

function wrongOrder(id, before, where) {
  return before === undefined ? undefined : `${id} came after ${before} (${where})`
}

/** @returns what is wrong with the end of a request, if anything */
function wrongEnd(id, kind, { end, details }, { responderRuns }) {
  const text = details.join(' ')
  if (!REQUEST_ENDS.has(end)) return `${id} ended with ${end} ${text}`
  if (end === 'REQUEST_FAILED') {
    // A service that closes ends the streams that its drain did not finish.
    const isOwn = details.includes(id) || (kind.startsWith('stream') && text === STREAM_ENDED)
    return isOwn ? undefined : `${id} got the error of another request: ${text}`
  }
  if (end === 'RESPONSE_LOST' && kind !== 'stream-qos0') return `${id} (${kind}) ended with ${end} ${text}`
  if (end !== 'response') return undefined
  const [of, by] = details
  if (of !== id) return `${id} got the response to ${of}`
  return responderRuns.get(id)?.includes(by)
    ? undefined
    : `${id} got a response from ${by}, which did not run`
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

/** @returns why a run has failed, or undefined. A law that has checked nothing proves nothing. */
export function failureOf(laws) {
  const broken = laws.filter(law => law.broken > 0).map(({ name }) => name)
  const unchecked = laws.filter(law => law.checks === 0).map(({ name }) => name)
  const parts = [
    ...(broken.length > 0 ? [broken.join(', ')] : []),
    ...(unchecked.length > 0 ? [`without a check: ${unchecked.join(', ')}`] : []),
  ]
  return parts.length === 0 ? undefined : parts.join('; ')
}
