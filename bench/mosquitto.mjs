import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { ownFolder, spawnOwned } from './owned.mjs'

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  await new Promise(resolve => server.close(resolve))
  return port
}

const isListening = port =>
  new Promise(resolve => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => resolve(socket.destroy() && true))
    socket.once('error', () => resolve(false))
  })

/**
 * Starts a mosquitto for this run, without limits that would affect the measurement. With certificate files it also listens
 * on `tlsPort`.
 */
export async function startMosquitto({ tls, nodelay = true } = {}) {
  const folder = ownFolder()
  const port = await freePort()
  const tlsPort = tls === undefined ? undefined : await freePort()
  const config = [
    `listener ${port} 127.0.0.1`,
    'allow_anonymous true',
    `set_tcp_nodelay ${nodelay}`,
    'max_inflight_messages 0',
    'max_queued_messages 0',
    ...(tls === undefined
      ? []
      : // Started by root, it would else become a user who may not read the key.
        ['user root', `listener ${tlsPort} 127.0.0.1`, `certfile ${tls.cert}`, `keyfile ${tls.key}`]),
  ]
  writeFileSync(join(folder, 'mosquitto.conf'), config.join('\n'))
  let child
  const up = async () => {
    child = spawnOwned('mosquitto', ['-c', join(folder, 'mosquitto.conf')], {
      stdio: 'ignore',
      env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` },
    })
    while (!(await isListening(port))) if (child.exitCode !== null) throw new Error('mosquitto did not start')
  }
  const down = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return
    const exited = once(child, 'exit')
    child.kill()
    await exited
  }
  await up()
  return {
    port,
    tlsPort,
    url: `mqtt://127.0.0.1:${port}`,
    pid: () => child.pid,
    /** Ends the broker, waits for the given promise, and starts it again. */
    restart: async whileDown => {
      await down()
      await whileDown()
      await up()
    },
    stop: down,
  }
}
