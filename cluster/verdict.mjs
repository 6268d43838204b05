// What the journals of a run say: what was promised and not handled, what was handled twice, and how long each kill had an effect.

/** After one of these outcomes the message must be handled. */
const PROMISES = ['acknowledged', 'stored', 'delivered']
/** After one of these, the broker has it. */
const ACKNOWLEDGEMENTS = ['acknowledged', 'delivered']

const earliest = times =>
  times.reduce((least, time) => (time < least ? time : least), Number.POSITIVE_INFINITY)

export class Evidence {
  /** All publishes by id: { publisher, calledMs, outcomes, acknowledgedMs }. */
  publishes = new Map()
  /** Times of handler runs by id. */
  runs = new Map()
  /** Changes of the connection by client: [time, status, URL]. */
  connections = new Map()

  /** Takes one line of the journal of this process. */
  take(process, line) {
    const [type, ...words] = line.split(' ')
    this[`take${type}`]?.(process, words)
  }

  takeC(publisher, [number, time]) {
    this.publishes.set(`${publisher} ${number}`, { publisher, calledMs: Number(time), outcomes: [] })
  }

  takeO(publisher, [number, outcome, time]) {
    const publish = this.publishes.get(`${publisher} ${number}`)
    publish.outcomes.push(outcome)
    if (ACKNOWLEDGEMENTS.includes(outcome)) publish.acknowledgedMs = Number(time)
  }

  takeH(_subscriber, [publisher, number, time]) {
    const id = `${publisher} ${number}`
    const times = this.runs.get(id) ?? []
    times.push(Number(time))
    this.runs.set(id, times)
  }

  takeS(client, [time, status, url]) {
    const changes = this.connections.get(client) ?? []
    changes.push([Number(time), status, url])
    this.connections.set(client, changes)
  }

  /** Ids of messages that were acknowledged or stored, and that no handler has finished. */
  missing() {
    return [...this.publishes]
      .filter(([id, { outcomes }]) => outcomes.some(end => PROMISES.includes(end)) && !this.runs.has(id))
      .map(([id]) => id)
  }

  /** Ids that were handled and that nobody published. */
  unknown() {
    return [...this.runs.keys()].filter(id => !this.publishes.has(id))
  }

  /** Per publisher: publishes, the last outcome of each, how many were handled, and how many runs were repeats. */
  totals() {
    const totals = new Map()
    for (const [id, { publisher, outcomes }] of this.publishes) {
      const total = totals.get(publisher) ?? { publishes: 0, ends: {}, handled: 0, repeats: 0 }
      totals.set(publisher, total)
      const end = outcomes.at(-1) ?? 'pending'
      const runs = this.runs.get(id)?.length ?? 0
      total.publishes += 1
      total.ends[end] = (total.ends[end] ?? 0) + 1
      total.handled += runs > 0 ? 1 : 0
      total.repeats += runs > 0 ? runs - 1 : 0
    }
    return totals
  }

  /**
   * How long a kill had an effect, in ms; Infinity: until the end of the run.
   * @param untilMs the next kill, or the end of the load
   */
  effectOf({ atMs, url }, untilMs) {
    const cut = [...this.connections.values()].filter(changes => placeOf(changes, atMs) === url)
    const after = [...this.publishes].filter(([, { calledMs }]) => calledMs >= atMs && calledMs < untilMs)
    /** For the publisher that waits longest. */
    const slowest = timeOf => {
      const firsts = new Map()
      for (const [id, publish] of after) {
        const time = timeOf(id, publish) ?? Number.POSITIVE_INFINITY
        firsts.set(publish.publisher, earliest([firsts.get(publish.publisher) ?? time, time]))
      }
      return Math.max(...firsts.values()) - atMs
    }
    return {
      cut: cut.length,
      connected:
        cut.length === 0 ? undefined : Math.max(...cut.map(changes => againAt(changes, atMs))) - atMs,
      acknowledged: slowest((_id, { acknowledgedMs }) => acknowledgedMs),
      handled: slowest(id => this.runs.get(id)?.[0]),
    }
  }
}

/** Where a client was connected at a time. */
function placeOf(changes, timeMs) {
  const change = changes.findLast(([time]) => time <= timeMs)
  return change?.[1] === 'connected' ? change[2] : undefined
}

const againAt = (changes, timeMs) =>
  earliest(changes.filter(([time, status]) => time > timeMs && status === 'connected').map(([time]) => time))

/** The value that half of them do not exceed. */
export function median(values) {
  const sorted = values.filter(value => value !== undefined).sort((a, b) => a - b)
  return sorted[Math.ceil(sorted.length / 2) - 1]
}
