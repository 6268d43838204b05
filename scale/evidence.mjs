// What was acknowledged and what was handled, from the devices and from the journals of the processes.
import { existsSync, readFileSync } from 'node:fs'
import { setTimeout as wait } from 'node:timers/promises'

/** @returns for each message the names of the processes that handled it, with the time, in chronological order */
export function handledIn(journals) {
  const runs = []
  for (const [name, file] of journals) {
    if (!existsSync(file)) continue
    for (const line of readFileSync(file, 'utf8').split('\n')) {
      const [kind, id, atMs] = line.split(' ')
      if (kind === 'H') runs.push({ name, id: Number(id), atMs: Number(atMs) })
    }
  }
  runs.sort((a, b) => a.atMs - b.atMs)
  const handled = new Map()
  for (const run of runs) handled.set(run.id, [...(handled.get(run.id) ?? []), run])
  return handled
}

export const lostOf = (acknowledged, handled) => acknowledged.filter(id => !handled.has(id))

export const repeatsOf = handled => [...handled].filter(([, runs]) => runs.length > 1)

/** Messages that were handled for the first time after a later message of their device. */
export function outOfOrder(handled, devices) {
  const firsts = [...handled].map(([id, [{ atMs }]]) => ({ id, atMs })).sort((a, b) => a.atMs - b.atMs)
  const latest = new Map()
  let count = 0
  for (const { id } of firsts) {
    const device = id % devices
    if (id < (latest.get(device) ?? -1)) count += 1
    else latest.set(device, id)
  }
  return count
}

/** Resolves when all of these messages were handled, or when nothing was handled for `quietMs`. */
export async function whenHandled(acknowledged, journals, quietMs) {
  let size = -1
  let sinceMs = performance.now()
  while (true) {
    const handled = handledIn(journals)
    if (lostOf(acknowledged, handled).length === 0) return handled
    if (handled.size !== size) sinceMs = performance.now()
    else if (performance.now() - sinceMs > quietMs) return handled
    size = handled.size
    await wait(200)
  }
}
