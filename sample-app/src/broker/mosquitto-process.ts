import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

// mosquitto, in a folder of its own. This process ends it, whatever happens to the demo.

const READY_WITHIN_MS = 5_000
const LOOK_EVERY_MS = 50

const port = Number(process.argv[2])
const folder = mkdtempSync(join(tmpdir(), 'cold-chain-mosquitto-'))
const config = join(folder, 'mosquitto.conf')
const lines = [`listener ${port} 127.0.0.1`, 'allow_anonymous true', 'set_tcp_nodelay true', 'log_type error']
writeFileSync(config, `${lines.join('\n')}\n`)

// Ctrl-C reaches every process of the terminal. Detached, so that the broker ends last.
const mosquitto = spawn('mosquitto', ['-c', config], {
  detached: true,
  stdio: ['ignore', 'ignore', 'inherit'],
})
mosquitto.once('error', () => {
  console.error(
    'mosquitto is not installed. Install it (Debian: apt-get install mosquitto), or run npm run sample.',
  )
  process.exit(1)
})
mosquitto.once('exit', code => {
  rmSync(folder, { recursive: true, force: true })
  process.exit(code ?? 0)
})
process.on('SIGINT', () => {})
process.on('disconnect', () => mosquitto.kill())
process.send?.(await whenReady())

async function whenReady(): Promise<string> {
  const deadline = Date.now() + READY_WITHIN_MS
  while (Date.now() < deadline) {
    const socket = connect(port, '127.0.0.1')
    const isOpen = await once(socket, 'connect').then(
      () => true,
      () => false,
    )
    socket.destroy()
    if (isOpen) return `mqtt://127.0.0.1:${port}`
    await sleep(LOOK_EVERY_MS)
  }
  throw new Error(`mosquitto does not listen on port ${port} after ${READY_WITHIN_MS} ms`)
}
