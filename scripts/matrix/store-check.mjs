import { execFile } from 'node:child_process'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { execPathOf } from './start-check.mjs'

const run = promisify(execFile)
const TIMEOUT_MS = 60_000

/**
 * Runs `storing.ts` in the built application under a version of Node: without a broker, its publishes must be stored; it
 * kills itself, and after a restart a broker must receive them in order.
 */
export async function checkStore(folder, node) {
  const { EmbeddedBroker } = await import('nestjs-mqtt/testing')
  const execPath = await execPathOf(node)
  const port = await freePort()
  const file = join(folder, `alarms-${node}.db`)
  const storing = texts =>
    run(execPath, ['dist/storing.js', file, ...texts], {
      cwd: folder,
      env: { ...process.env, MQTT_URL: `mqtt://127.0.0.1:${port}` },
      timeout: TIMEOUT_MS,
    })
  const { signal, stdout } = await storing(['one', 'two', 'three']).catch(error => error)
  const stored = 'one stored\ntwo stored\nthree stored\n'
  if (signal !== 'SIGKILL' || stdout !== stored)
    throw new Error(`the application did not store: ${signal}, ${JSON.stringify(stdout)}`)
  const broker = await EmbeddedBroker.start({ port })
  try {
    const arrived = []
    const receive = async () => {
      while (arrived.length < 3)
        arrived.push((await broker.nextMessage('alarms', { timeoutMs: TIMEOUT_MS })).payload)
    }
    const [restarted] = await Promise.all([storing([]), receive()])
    const received = arrived.map(String).join()
    if (restarted.stdout !== '3 delivered\n' || received !== '"one","two","three"')
      throw new Error(
        `after a restart: ${JSON.stringify(restarted.stdout)}, and the broker received ${received}`,
      )
  } finally {
    await broker.stop()
  }
}

async function freePort() {
  const server = createServer()
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address()
  await new Promise(resolve => server.close(resolve))
  return port
}
