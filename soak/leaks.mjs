// What may differ between two quiet points of a process that was not killed in between.
const MOST_GROWTH = {
  timers: 3,
  handles: 2,
  descriptors: 3,
  listeners: 2,
  subscriptions: 0,
  heapBytes: 8_000_000,
}
/** What no process may hold at a quiet point. */
const NOTHING_LEFT = { slots: 'slots', queuedBytes: 'B of messages', rows: 'rows in its store' }

/**
 * Yields for each check what has grown since the first quiet point, or what is held at one, or undefined. A leak is there at every
 * later point; a timer that ends a second later is not. So the least of the later half of the points counts.
 */
export function* leaks(actors, points) {
  for (const [index, { name, mayBeKilled }] of actors.entries()) {
    for (const point of points)
      for (const [what, unit] of Object.entries(NOTHING_LEFT)) {
        const held = point[index][what]
        yield held > 0 ? `${name} holds ${held} ${unit} at a quiet point` : undefined
      }
    if (mayBeKilled || points.length < 2) continue
    const later = points.slice(Math.ceil(points.length / 2))
    for (const [what, most] of Object.entries(MOST_GROWTH)) {
      const before = points[0][index][what]
      const after = Math.min(...later.map(point => point[index][what]))
      yield after - before > most ? `${what} of ${name}: ${before}, then ${after}` : undefined
    }
  }
}
