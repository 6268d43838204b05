// Does the cost of a message grow with what a client holds? One plot for each axis; a flat one is what it should be.
import { Child } from './child.mjs'
import { startMosquitto } from './mosquitto.mjs'
import { rowOf } from './report/row.mjs'
import { median } from './rounds.mjs'

export const title = 'Growth'

const MESSAGES = 20_000
const QUICK_MESSAGES = 8_000
const WARM_UP_ROUNDS = 2
/** The cost with the most of them, over the cost with the fewest. Caches of the processor alone account for this much. */
const MOST_GROWTH = 2
const AXES = [
  {
    axis: 'handlers',
    name: 'handlers, one of which receives',
    counts: [1, 100, 10_000, 100_000],
    quick: 10_000,
  },
  { axis: 'topics', name: 'topics received in turn', counts: [1, 1_000, 100_000, 1_000_000], quick: 100_000 },
  { axis: 'requests', name: 'other open requests', counts: [1, 100, 1_000, 10_000], quick: 1_000 },
  { axis: 'listeners', name: 'listeners of the state', counts: [1, 100, 10_000], quick: 10_000 },
  {
    axis: 'unacknowledged',
    name: 'publishes in flight',
    counts: [100, 1_000, 10_000, 60_000],
    quick: 10_000,
  },
]
const here = file => new URL(file, import.meta.url)

export async function* rows({ rounds, isQuick }) {
  for (const { axis, name, counts, quick } of AXES) {
    const xs = counts.filter(count => !isQuick || count === counts[0] || count === quick)
    const points = await measure(axis, xs, { rounds, messages: isQuick ? QUICK_MESSAGES : MESSAGES })
    const [first, last] = [points[0], points.at(-1)]
    const figures = { ours: { micros: last.micros }, floor: { micros: first.micros } }
    const row = rowOf(`${last.x.toLocaleString('en')} ${name}`, figures, [
      { figure: 'micros', peer: 'floor', atMost: MOST_GROWTH },
    ])
    yield { ...row, axis: name, points }
  }
}

/** The median CPU time of a message for each count. The counts take turns, so that noise affects all of them equally. */
async function measure(axis, xs, { rounds, messages: least }) {
  const points = []
  for (const x of xs) {
    const peer = await startPeer(axis, x)
    const { child } = await Child.start(process.execPath, here('growth/subject.mjs'), {
      axis,
      x,
      port: peer.port,
    })
    points.push({ x, peer, child, costs: [] })
  }
  for (let round = -WARM_UP_ROUNDS; round < rounds; round += 1) {
    for (const { x, peer, child, costs } of points) {
      const messages = axis === 'topics' ? Math.max(least, Math.min(x, 10 * least)) : least
      const measured = child.ask({ messages })
      await peer.send(messages)
      const { micros } = await measured
      if (round >= 0) costs.push(micros)
    }
  }
  for (const { peer, child } of points) {
    await child.end()
    await peer.end()
  }
  return points.map(({ x, costs }) => ({ x, micros: median(costs) }))
}

async function startPeer(axis, x) {
  if (axis === 'requests') {
    // With Nagle's algorithm on, the rounds would take a minute.
    const broker = await startMosquitto({ nodelay: true })
    const responder = (
      await Child.start(process.execPath, here('request/responder.mjs'), {
        subject: 'ours',
        port: broker.port,
      })
    ).child
    const end = async () => {
      await responder.end()
      await broker.stop()
    }
    return { port: broker.port, send: async () => {}, end }
  }
  const { child, first } = await Child.start(process.execPath, here('growth/peer.mjs'), {})
  const topics = axis === 'topics' ? x : 1
  const firstTopic = axis === 'handlers' ? x - 1 : 0
  const isInbound = axis === 'handlers' || axis === 'topics'
  const send = messages => (isInbound ? child.ask({ messages, topics, firstTopic }) : Promise.resolve())
  return { port: first.port, send, end: () => child.end() }
}
