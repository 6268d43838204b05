import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { docBlocks } from '../doc-blocks.mjs'

const START_MS = 60_000

const README = docBlocks(new URL('../../README.md', import.meta.url)).flatMap(({ code }) => code.split('\n'))
/** How the README sends a message, and what the application then logs. */
const FIRST_MESSAGE = README.find(line => line.startsWith('npx mqtt pub'))
const LOGGED = README.filter(line => line.startsWith('LOG [TelemetryController]'))

/**
 * Starts the built application under a version of Node, against a broker in this process, sends the message of the
 * README, waits for what it then logs and publishes, and ends it with SIGTERM.
 */
export async function checkStart(folder, node) {
  const { EmbeddedBroker } = await import('nestjs-mqtt/testing')
  const broker = await EmbeddedBroker.start()
  const execPath = await execPathOf(node)
  const child = spawn(execPath, ['dist/main.js'], {
    cwd: folder,
    env: { ...process.env, MQTT_URL: broker.url, PORT: '0' },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let log = ''
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', chunk => (log += withoutColours(chunk)))
  const exited = once(child, 'exit')
  try {
    await Promise.race([listening(child), exited.then(([code]) => fail(`exit code ${code} at the start`))])
    await output('sh', ['-c', `${FIRST_MESSAGE} -p ${new URL(broker.url).port}`], folder)
    await broker.nextMessage('devices/7/alarm')
    child.kill('SIGTERM')
    const [code] = await exited
    if (code !== 0) fail(`exit code ${code} after SIGTERM`)
    const missing = LOGGED.filter(line => !log.includes(line))
    if (LOGGED.length === 0 || missing.length > 0) fail(`it did not log ${JSON.stringify(missing)}`)
  } catch (error) {
    throw Object.assign(new Error(`the application did not run: ${error.message}`), { stdout: log })
  } finally {
    child.kill('SIGKILL')
    await broker.stop()
  }
}

/** Where npm has a version of Node. */
export async function execPathOf(node) {
  const command = ['exec', '--yes', `--package=node@${node}`, '--', 'node', '--print', 'process.execPath']
  return (await output('npm', command)).trim()
}

function listening(child) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`not listening after ${START_MS} ms`)), START_MS)
    child.once('exit', () => clearTimeout(timer))
    child.stdout.on('data', chunk => {
      if (!String(chunk).includes('Nest application successfully started')) return
      clearTimeout(timer)
      resolve()
    })
  })
}

function withoutColours(chunk) {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: the colours of a terminal
  return String(chunk).replace(/\x1b\[[0-9;]*m/g, '')
}

async function output(command, args, cwd) {
  const child = spawn(command, args, { cwd, stdio: ['ignore', 'pipe', 'inherit'] })
  let text = ''
  child.stdout.on('data', chunk => (text += chunk))
  await once(child, 'close')
  return text
}

function fail(text) {
  throw new Error(text)
}
