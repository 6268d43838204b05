import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { handledIn, lostOf, outOfOrder, repeatsOf } from '../../scale/evidence.mjs'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'nestjs-mqtt-evidence-'))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

/** What processes wrote into their journals: `H <id> <time>`. */
function handled(journals: Readonly<Record<string, readonly string[]>>) {
  const files = Object.entries(journals).map(([name, lines]): [string, string] => {
    const file = join(folder, name)
    writeFileSync(file, lines.map(line => `${line}\n`).join(''))
    return [name, file]
  })
  return handledIn(files)
}

describe('the verdict of a run of `npm run scale`', () => {
  it('names the acknowledged messages that no process has handled', () => {
    const runs = handled({ a: ['L 1', 'H 0 10'], b: ['L 1', 'H 2 11'] })
    expect(lostOf([0, 1, 2, 3], runs)).toEqual([1, 3])
  })

  it('names a message that was handled twice, with the processes in chronological order', () => {
    const runs = handled({ a: ['H 0 20', 'H 1 21'], b: ['H 0 10'] })
    expect(repeatsOf(runs).map(([id, each]) => [id, each.map(({ name }) => name)])).toEqual([[0, ['b', 'a']]])
  })

  it('counts the messages that were handled after a later one of their device, by their first run', () => {
    // Devices 0 and 1: messages 0, 2, 4 and 1, 3, 5.
    const runs = handled({ a: ['H 0 1', 'H 4 2', 'H 3 3', 'H 4 9'], b: ['H 2 4', 'H 1 5', 'H 5 6'] })
    expect(outOfOrder(runs, 2)).toBe(2)
  })

  it('treats a missing journal as that of a process that has handled nothing', () => {
    expect(handledIn([['a', join(folder, 'none')]]).size).toBe(0)
  })
})
