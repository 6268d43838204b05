import { spawn } from 'node:child_process'
import { once } from 'node:events'

const START_MS = 60_000

/**
 * Starts the built application under a version of Node, against a broker in this process, lets it handle a message
 * and publish one, and ends it with SIGTERM.
 */
export async function checkStart(folder, node) {
  const { EmbeddedBroker } = await import('nestjs-mqtt/testing')
  const broker = await EmbeddedBroker.start()
  const command = ['exec', '--yes', `--package=node@${node}`, '--', 'node', '--print', 'process.execPath']
  const execPath = (await output('npm', command)).trim()
  const child = spawn(execPath, ['dist/main.js'], {
    cwd: folder,
    env: { ...process.env, MQTT_URL: broker.url, PORT: '0' },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let log = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', chunk => (log += chunk))
  const exited = once(child, 'exit')
  try {
    await Promise.race([listening(child), exited.then(([code]) => fail(`exit code ${code} at the start`))])
    await broker.deliver('devices/7/telemetry', { celsius: 9 })
    await broker.nextMessage('devices/7/alarm')
    child.kill('SIGTERM')
    const [code] = await exited
    if (code !== 0) fail(`exit code ${code} after SIGTERM`)
  } catch (error) {
    throw Object.assign(new Error(`the application did not run: ${error.message}`), { stdout: log })
  } finally {
    child.kill('SIGKILL')
    await broker.stop()
  }
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

async function output(command, args) {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  let text = ''
  child.stdout.on('data', chunk => (text += chunk))
  await once(child, 'close')
  return text
}

function fail(text) {
  throw new Error(text)
}
