// Reads the journals of all processes, and judges the run.
import { execFileSync } from 'node:child_process'
import { createReadStream, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { Evidence, judge } from './laws.mjs'
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
      const { messages, setAside } = JSON.parse(execFileSync(process.execPath, args))
      return { name, messages, setAside }
    })
}

serve({
  async judge() {
    const evidence = await evidenceOf()
    const outcomes = {}
    for (const { outcome = 'pending by a kill', publisher } of evidence.publishes.values()) {
      outcomes[publisher] ??= {}
      outcomes[publisher][outcome] = (outcomes[publisher][outcome] ?? 0) + 1
    }
    const sum = map => [...map.values()].reduce((total, count) => total + count, 0)
    const laws = judge(evidence, { killed, stores: storesLeft() }).map(({ broken, ...law }) => ({
      ...law,
      broken: broken.length,
      examples: broken.slice(0, MOST_EXAMPLES),
    }))
    return {
      laws,
      outcomes,
      publishes: evidence.publishes.size,
      witnessed: { copies: sum(evidence.witnessed), distinct: evidence.witnessed.size },
      handled: { runs: sum(evidence.handled), distinct: evidence.handled.size },
      deadLetters: evidence.deadLetters.size,
      withoutGroup: [...evidence.publishes].filter(([id, publish]) => evidence.hadNoGroup(id, publish))
        .length,
    }
  },
})
