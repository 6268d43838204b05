// npm run interop: tries the features that this package relies on with every broker that is installed, and writes the table of
// docs/interoperability.md. Starts its own brokers on the loopback address. --doctor writes the outputs in docs/doctor.md
// instead. Names of brokers limit the run, and then nothing is written.
import { execFile } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { FEATURES, pause } from './brokers/features.mjs'
import { BROKERS } from './brokers/start.mjs'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const FEATURE_LIMIT_MS = 20_000
const RUN_LIMIT_MS = 600_000

setTimeout(() => {
  console.error(`not finished after ${RUN_LIMIT_MS / 60_000} minutes`)
  process.exit(1)
}, RUN_LIMIT_MS).unref()

const load = name => import(pathToFileURL(join(ROOT, 'dist/esm', name)).href)
const { MqttClient } = await load('client/index.js')
const modules = { sqliteStore: (await load('store/index.js')).sqliteStore }

const args = process.argv.slice(2)
const names = args.filter(name => !name.startsWith('--'))
const chosen = BROKERS.filter(({ id }) => names.length === 0 || names.includes(id))

/** Replaces what is between two comments of a page. */
function writePart(page, part, text) {
  const file = join(ROOT, 'docs', page)
  const before = readFileSync(file, 'utf8')
  const marks = [`<!-- ${part}: written by npm run interop -->`, `<!-- end of ${part} -->`]
  const [start, end] = marks.map(mark => before.indexOf(mark))
  if (start < 0 || end < start) throw new Error(`docs/${page} has no part ${part}`)
  writeFileSync(file, `${before.slice(0, start)}${marks[0]}\n\n${text.trim()}\n\n${before.slice(end)}`)
}

/** Runs one feature with clients of its own, within a time limit. */
async function tried(feature, { url, credentials = {} }, protocolVersion, index) {
  const clients = []
  const open = async (options = {}, prepare = () => {}) => {
    const client = new MqttClient({
      url,
      ...credentials,
      protocolVersion,
      drainTimeoutMs: 500,
      requests: { responseTopicPrefix: 'interop/responses' },
      ...options,
      ...(protocolVersion === 4 || options.properties === undefined
        ? {}
        : { properties: options.properties }),
    })
    clients.push(client)
    prepare(client)
    await client.start()
    return client
  }
  const name = `${protocolVersion}-${index}`
  const limit = pause(FEATURE_LIMIT_MS).then(() => `not finished after ${FEATURE_LIMIT_MS / 1_000} s`)
  try {
    return await Promise.race([feature.run({ open, topic: `interop/${name}`, name, modules }), limit])
  } catch (error) {
    return error.message.split('\n')[0]
  } finally {
    await Promise.all(clients.map(client => client.close().catch(() => {})))
  }
}

/** Results of one broker and version; undefined if it does not accept the version. */
async function column(broker, protocolVersion) {
  const probe = new MqttClient({
    url: broker.url,
    ...broker.credentials,
    protocolVersion,
    drainTimeoutMs: 100,
  })
  try {
    await probe.start()
  } catch {
    return undefined
  } finally {
    await probe.close()
  }
  const results = []
  for (const [index, feature] of FEATURES.entries()) {
    if (feature.isMqtt5 && protocolVersion === 4) results.push('none')
    else results.push((await tried(feature, broker, protocolVersion, index)) ?? 'works')
    console.error(`${broker.title} ${protocolVersion}: ${feature.title}: ${results.at(-1)}`)
  }
  return results
}

const VERSIONS = { 5: 'MQTT 5', 4: 'MQTT 3.1.1' }

async function table() {
  const columns = []
  const remarks = []
  for (const { title, version, start } of chosen) {
    const found = version()
    if (found === undefined) {
      columns.push({ head: title, results: FEATURES.map(() => 'not run') })
      continue
    }
    const broker = { title, ...(await start()) }
    try {
      for (const protocolVersion of [5, 4]) {
        const results = await column(broker, protocolVersion)
        const head = `${title} ${found}, ${VERSIONS[protocolVersion]}`
        columns.push({ head, results: results ?? FEATURES.map(() => 'refused') })
      }
    } finally {
      await broker.stop()
    }
  }
  const cell = (value, where) => {
    if (value === 'works') return 'yes'
    if (value === 'none') return '-'
    if (value === 'not run' || value === 'refused') return value
    remarks.push(`${where}: ${value}`)
    return `no [${remarks.length}]`
  }
  const rows = FEATURES.map(({ title }, index) => [
    title,
    ...columns.map(({ head, results }) => cell(results[index], `${head}, ${title}`)),
  ])
  const lines = [['', ...columns.map(({ head }) => head)], columns.map(() => '---').concat('---'), ...rows]
  const numbered = remarks.map((remark, index) => `${index + 1}. ${remark}`)
  return `${lines.map(line => `| ${line.join(' | ')} |`).join('\n')}\n\n${numbered.join('\n')}\n`
}

async function outputs() {
  const parts = []
  for (const { title, version, start } of chosen) {
    const found = version()
    if (found === undefined) {
      parts.push(`### ${title}\n\nNot run: it is not installed.`)
      continue
    }
    const broker = await start()
    try {
      const { username = '', password = '' } = broker.credentials ?? {}
      const env = {
        ...process.env,
        ...(username === '' ? {} : { MQTT_USERNAME: username, MQTT_PASSWORD: password }),
      }
      const command = [join(ROOT, 'dist/esm/cli/nestjs-mqtt.js'), 'doctor', broker.url]
      const { stdout } = await promisify(execFile)(process.execPath, command, { env }).catch(error => error)
      const shown = stdout.replaceAll(broker.url, 'mqtt://127.0.0.1:1883').trim()
      parts.push(`### ${title} ${found}\n\n\`\`\`text\n${shown}\n\`\`\``)
    } finally {
      await broker.stop()
    }
  }
  return parts.join('\n\n')
}

const isDoctor = args.includes('--doctor')
const text = isDoctor ? await outputs() : await table()
console.log(text)
if (names.length === 0)
  writePart(isDoctor ? 'doctor.md' : 'interoperability.md', isDoctor ? 'outputs' : 'table', text)
process.exit(0)
