/** Messages whose end is told to the publisher together. */
export const BATCH = 256
/** Messages that may be under way: fewer than any subject drops, or takes for too many. */
export const WINDOW = 768

export const SUBJECTS = ['ours', 'builtIn', 'raw']
export const VERSIONS = [5, 4]
const MESSAGES = 80 * BATCH
const CPU_BUDGET = 1.15

const PEER = 'a peer that only publishes'
export const BROKERS = { mosquitto: 'mosquitto', peer: PEER }
const BOTH = [BROKERS.mosquitto, PEER]
/** With one pattern mosquitto is the limit of QoS 1, and not the client. */
const BUDGETS = { 1: { [PEER]: 1.2 }, 1000: { mosquitto: 30, [PEER]: 30 }, 10000: { [PEER]: 300 } }

/** One row for each level of QoS; `builtIn` are its messages where many would take too long. */
const GROUPS = [
  { count: 1, kind: 'event', levels: [0, 1], builtIn: MESSAGES, on: BOTH },
  { count: 1, kind: 'message', levels: [0], builtIn: MESSAGES, on: [PEER] },
  { count: 100, kind: 'event', levels: [0, 1], builtIn: 20 * BATCH, on: [PEER] },
  { count: 1_000, kind: 'event', levels: [0, 1], builtIn: 2 * BATCH, on: BOTH },
  { count: 1_000, kind: 'message', levels: [0], builtIn: 2 * BATCH, on: [PEER] },
  { count: 10_000, kind: 'event', levels: [0, 1], builtIn: BATCH, on: [PEER] },
]

/** @param counts numbers of patterns; all of them where none is named */
export function plan(counts) {
  const unknown = counts.filter(count => !GROUPS.some(group => String(group.count) === count))
  if (unknown.length > 0) throw new Error(`no row has ${unknown.join(', ')} patterns`)
  return GROUPS.filter(({ count }) => counts.length === 0 || counts.includes(String(count)))
}

export const messagesOf = (subject, { builtIn }) => (subject === 'builtIn' ? builtIn : MESSAGES)

export const budgetsOf = (broker, { count }) => ({ rate: BUDGETS[count]?.[broker], cpu: CPU_BUDGET })

/** What of a row is worse than it may be. */
export function missed({ budgets, ratios }) {
  const rate = budgets.rate !== undefined && ratios.rate < budgets.rate ? [`rate >= x ${budgets.rate}`] : []
  const cpu = ratios.cpu > budgets.cpu ? [`CPU <= x ${budgets.cpu}`] : []
  return [...rate, ...cpu]
}
