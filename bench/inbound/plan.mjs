/** Number of messages whose end is reported to the publisher together. */
export const BATCH = 256
/** Number of messages in flight: below the limit at which any subject drops messages. */
export const WINDOW = 768

/** `floor` is plain `mqtt` with JSON.parse and the same handler. */
export const SUBJECTS = ['ours', 'builtIn', 'floor']
export const VERSIONS = [5, 4]
export const MOSQUITTO = 'mosquitto'
export const PEER = 'free peer'
const BOTH = [MOSQUITTO, PEER]
/** Number of batches per round: short rounds would measure the compiler and the garbage collector. */
const BATCHES = 240
/** The built-in transport takes several times as long. */
const BUILT_IN = 80
/** Relative to the rate of the built-in transport, where the client is the limit. */
const RATES = { 1: 1.5, 1000: 50, 10000: 400 }

/** One row per QoS; `builtIn` is its number of batches where many would take too long. */
const GROUPS = [
  { count: 1, kind: 'event', levels: [0, 1], builtIn: BUILT_IN, on: BOTH, isQuick: true },
  { count: 1, kind: 'message', levels: [0], builtIn: BUILT_IN, on: [PEER], isQuick: true },
  { count: 100, kind: 'event', levels: [0, 1], builtIn: 20, on: [PEER] },
  { count: 1_000, kind: 'event', levels: [0, 1], builtIn: 2, on: [PEER], isQuick: true },
  { count: 1_000, kind: 'event', levels: [0, 1], builtIn: 2, on: [MOSQUITTO] },
  { count: 1_000, kind: 'message', levels: [0], builtIn: 2, on: [PEER] },
  { count: 10_000, kind: 'event', levels: [0, 1], builtIn: 1, on: [PEER] },
]

/** @param args numbers of patterns, and `--broker=mosquitto` or `--broker=peer`; all of them by default */
export function plan({ args, isQuick }) {
  const counts = args.filter(arg => /^\d+$/.test(arg))
  const unknown = counts.filter(count => !GROUPS.some(group => String(group.count) === count))
  if (unknown.length > 0) throw new Error(`no row has ${unknown.join(', ')} patterns`)
  const brokers = brokersOf(args)
  return GROUPS.filter(
    ({ count, isQuick: isShort }) =>
      (counts.length === 0 || counts.includes(String(count))) && (!isQuick || isShort),
  ).map(group => ({ ...group, on: group.on.filter(name => brokers.includes(name)) }))
}

function brokersOf(args) {
  const named = args.find(arg => arg.startsWith('--broker='))?.slice('--broker='.length)
  if (named === undefined) return BOTH
  const broker = { mosquitto: MOSQUITTO, peer: PEER }[named]
  if (broker === undefined) throw new Error(`--broker=${named}: use mosquitto or peer`)
  return [broker]
}

export const messagesOf = (subject, { builtIn }, share) =>
  BATCH *
  (subject !== 'builtIn' ? Math.round(BATCHES * share) : Math.min(builtIn, Math.round(BUILT_IN * share)))

export function budgetsOf(broker, { count, kind }) {
  const rate = broker === PEER && kind === 'event' ? RATES[count] : undefined
  return [
    { figure: 'perSecond', peer: 'builtIn', atLeast: rate ?? 0.95 },
    { figure: 'cpuMicros', peer: 'builtIn', atMost: 1.05 },
    { figure: 'cpuMicros', peer: 'floor', atMost: 1.15 },
  ]
}
