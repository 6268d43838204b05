// Runs the soak on builds with one deliberate fault each, to prove that it finds them.
//   npm run soak -- --broken early-ack        the run fails, and shows how
//   npm run soak:broken -- [--minutes 1] [--seed 3] [<name> …]     all of them, or these; succeeds if each breaks one of its laws
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const ROOT = fileURLToPath(new URL('..', import.meta.url))

/** Each fault: the text in the build that it replaces, and the laws of which it must break one. */
export const BROKEN = {
  'early-ack': {
    what: 'a QoS 1 message is acknowledged before its handler ran',
    file: 'client/inbound/inbound-dispatcher.js',
    find: `        const isOver = messages.add(delivery);\n`,
    replace: `        const isOver = messages.add(delivery);\n        if (qos === 1) {\n            delivery.mayBeAcknowledged = true;\n            this.acknowledge();\n        }\n`,
    laws: ['handled'],
  },
  'uncounted-drop': {
    what: 'a dropped publish is not counted',
    file: 'client/outbound/publishes.js',
    find: `            this.dropped[outcome.reason] += 1;\n`,
    replace: '',
    laws: ['counters'],
  },
  'early-delete': {
    what: 'a stored message is deleted when it is sent, before its PUBACK',
    file: 'client/outbound/replay.js',
    find: `            this.track(kept, message.position);\n`,
    replace: `            this.track(kept, message.position);\n            this.end(kept, { status: 'delivered' });\n`,
    laws: ['delivered'],
  },
  'swapped-response': {
    what: 'one of 10 responses is taken for the response to another open request',
    file: 'client/requests/open-requests.js',
    find: `    last(key, value) {\n        const request`,
    replace: `    last(given, value) {\n        this.ends = (this.ends ?? 0) + 1;\n        const key = (this.ends % 10 === 0 && [...this.open.keys()].find(other => other !== given)) || given;\n        const request`,
    laws: ['requests'],
  },
  'unsettled-request': {
    what: 'a request that is open when its connection ends never settles',
    file: 'client/requests/open-requests.js',
    find: `            request?.receiver.fail(cause);\n`,
    replace: '',
    laws: ['requests'],
  },
  'leaked-slot': {
    what: 'one of 40 ends of a handler does not release its slot',
    file: 'core/inbound/run-scheduler.js',
    find: `            if (run.openRequests === 0) {\n`,
    replace: `            this.ends = (this.ends ?? 0) + 1;\n            if (run.openRequests === 0 && this.ends % 40 !== 0) {\n`,
    laws: ['no leak', 'no starvation', 'drains'],
  },
}

/** Copies the build, breaks it, and runs the soak in the copy. @returns its exit code and output */
export async function runBroken(name, args, write) {
  const { file, find, replace } = BROKEN[name]
  const folder = mkdtempSync(join(tmpdir(), `nestjs-mqtt-${name}-`))
  try {
    for (const part of ['dist', 'soak', 'package.json'])
      cpSync(join(ROOT, part), join(folder, part), { recursive: true })
    symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'))
    const path = join(folder, 'dist', file)
    const pieces = readFileSync(path, 'utf8').split(find)
    if (pieces.length !== 2)
      throw new Error(
        `${name}: the text to replace occurs ${pieces.length - 1} times in dist/${file}; update soak/broken.mjs`,
      )
    writeFileSync(path, pieces.join(replace))
    const child = spawn(process.execPath, [join(folder, 'soak/run.mjs'), ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => child.kill(signal))
    let output = ''
    child.stdout.on('data', text => {
      output += text
      write(text)
    })
    const [code] = await once(child, 'close')
    return { code, output }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** Runs the soak on broken builds. @returns whether each broke one of its laws */
async function proveAll(names, args) {
  const rows = []
  for (const name of names) {
    console.log(`\n${name}: ${BROKEN[name].what}`)
    const { code, output } = await runBroken(name, args, text => process.stdout.write(text))
    const found = /^FAILED with seed \S+: (.*?);/m.exec(output)?.[1].split(', ') ?? []
    const isFound = code !== 0 && BROKEN[name].laws.some(law => found.includes(law))
    rows.push({ name, isFound, found })
  }
  console.log('')
  for (const { name, isFound, found } of rows)
    console.log(
      `${name}: ${isFound ? 'found' : `NOT FOUND, expected ${BROKEN[name].laws.join(' or ')}`}; broken laws: ${found.join(', ') || 'none'}`,
    )
  return rows.every(({ isFound }) => isFound)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { minutes: { type: 'string', default: '1' }, seed: { type: 'string', default: '3' } },
  })
  const unknown = positionals.filter(name => !(name in BROKEN))
  if (unknown.length > 0)
    throw new Error(
      `there is no broken build "${unknown.join(', ')}"; there are: ${Object.keys(BROKEN).join(', ')}`,
    )
  const names = positionals.length === 0 ? Object.keys(BROKEN) : positionals
  const areFound = await proveAll(names, ['--minutes', values.minutes, '--seed', values.seed])
  process.exitCode = areFound ? 0 : 1
}
