// What may differ between two quiet points of a process that was not killed in between.
const MOST_GROWTH = {
  timers: 3,
  handles: 2,
  descriptors: 3,
  listeners: 2,
  subscriptions: 0,
}
const MOST_HEAP_GROWTH_BYTES = 8_000_000

/** @returns what has grown from the first to the last quiet point, and what is never allowed at one */
export function leaks(actors, points) {
  const first = points[0]
  const last = points.at(-1)
  return actors.flatMap(({ name, mayBeKilled }, index) => {
    const found = points.flatMap(point => {
      const { slots, queuedBytes } = point[index]
      return [
        ...(slots > 0 ? [`${name} holds ${slots} slots at a quiet point`] : []),
        ...(queuedBytes > 0 ? [`${name} holds ${queuedBytes} B of messages at a quiet point`] : []),
      ]
    })
    if (mayBeKilled || points.length < 2) return found
    const grown = (what, most) => {
      const before = first[index][what]
      const after = last[index][what]
      return after - before > most ? [`${what} of ${name}: ${before}, then ${after}`] : []
    }
    const numbers = Object.entries(MOST_GROWTH).flatMap(([what, most]) => grown(what, most))
    return [...found, ...numbers, ...grown('heapBytes', MOST_HEAP_GROWTH_BYTES)]
  })
}
