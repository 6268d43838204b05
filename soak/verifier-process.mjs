// Reads the journals of all processes, and judges the run.
import { execFileSync } from 'node:child_process'
import { createReadStream, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { Evidence } from './evidence.mjs'
import { judge } from './laws.mjs'
import { serve } from './remote.mjs'

const MOST_EXAMPLES = 5
const COMMAND = fileURLToPath(new URL('../dist/esm/cli/nestjs-mqtt.js', import.meta.url))
const { folder, killed } = JSON.parse(process.argv[2])

async function evidenceOf() {
  const evidence = new Evidence()
  for (const file of readdirSync(folder).filter(name => name.endsWith('.journal'))) {
    const name = file.replace('.journal', '')
    for await (const line of createInterface({ input: createReadStream(join(folder, file)) }))
      evidence.take(name, line)
  }
  return evidence
}

/** What the command of the package finds in the store of each publisher. */
function storesLeft() {
  return readdirSync(folder)
    .filter(name => name.endsWith('.db') && name.startsWith('publisher'))
    .map(name => {
      const args = ['--no-warnings', COMMAND, 'store', join(folder, name), '--json']
      try {
        const { messages, setAside } = JSON.parse(execFileSync(process.execPath, args, { encoding: 'utf8' }))
        return { name, messages, setAside }
      } catch (error) {
        return { name, error: error.message }
      }
    })
}

/** How many of these items there are of each kind. */
function countBy(items, kindOf) {
  const counts = {}
  for (const item of items) {
    const kind = kindOf(item)
    counts[kind] = (counts[kind] ?? 0) + 1
  }
  return counts
}

serve({
  async judge() {
    const evidence = await evidenceOf()
    const publishes = [...evidence.publishes.values()]
    const outcomes = Object.fromEntries(
      [...new Set(publishes.map(each => each.process))].map(name => [
        name,
        countBy(
          publishes.filter(each => each.process === name),
          ({ outcome = 'pending because of a kill' }) => outcome,
        ),
      ]),
    )
    const requests = countBy(
      evidence.requests.values(),
      ({ settlements }) => settlements[0]?.end ?? 'pending because of a kill',
    )
    const responderRuns = [...evidence.responderRuns.values()].reduce((total, runs) => total + runs.length, 0)
    const sum = map => [...map.values()].reduce((total, count) => total + count, 0)
    const laws = judge(evidence, { killed, stores: storesLeft() }).map(({ broken, ...law }) => ({
      ...law,
      broken: broken.length,
      examples: broken.slice(0, MOST_EXAMPLES),
    }))
    return {
      laws,
      outcomes,
      requests: { ends: requests, runs: responderRuns, handled: evidence.responderRuns.size },
      operations: Object.fromEntries(evidence.operations),
      publishes: evidence.publishes.size,
      witnessed: { copies: sum(evidence.witnessed), distinct: evidence.witnessed.size },
      handled: { runs: sum(evidence.handled), distinct: evidence.handled.size },
      deadLetters: evidence.deadLetters.size,
      withoutGroup: [...evidence.publishes].filter(([id, publish]) => evidence.hadNoGroup(id, publish))
        .length,
    }
  },
})
