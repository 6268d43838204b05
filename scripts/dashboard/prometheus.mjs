import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { ownFolder, spawnOwned } from '../../bench/owned.mjs'

const START_MS = 30_000

/** A Prometheus of its own, which scrapes one target every second. Its data is removed when this process exits. */
export class Prometheus {
  #url
  #child

  static async start(target) {
    const folder = ownFolder()
    const config = join(folder, 'prometheus.yml')
    const job = {
      job_name: 'dashboard-check',
      scrape_interval: '1s',
      static_configs: [{ targets: [target] }],
    }
    // JSON is YAML, too.
    writeFileSync(config, JSON.stringify({ scrape_configs: [job] }))
    const prometheus = new Prometheus()
    const address = `127.0.0.1:${await freePort()}`
    prometheus.#url = `http://${address}/api/v1/`
    prometheus.#child = spawnOwned(
      'prometheus',
      [
        `--config.file=${config}`,
        `--storage.tsdb.path=${join(folder, 'data')}`,
        `--web.listen-address=${address}`,
      ],
      { stdio: 'ignore' },
    )
    prometheus.#child.once('error', () => {
      console.error('prometheus is not installed; on Debian: apt-get install prometheus')
      process.exit(1)
    })
    await prometheus.#ready()
    return prometheus
  }

  async #ready() {
    const deadlineMs = performance.now() + START_MS
    while (performance.now() < deadlineMs) {
      if (this.#child.exitCode !== null) throw new Error('prometheus did not start')
      const found = await this.get('status/buildinfo').catch(() => undefined)
      if (found !== undefined) return
      await pause(100)
    }
    throw new Error(`prometheus was not ready after ${START_MS} ms`)
  }

  /** The data of a response. Rejects with the error that Prometheus reports. */
  async get(path, parameters = {}) {
    const response = await fetch(`${this.#url}${path}?${new URLSearchParams(parameters)}`)
    const { status, error, data } = await response.json()
    if (status !== 'success') throw new Error(error)
    return data
  }

  async stop() {
    const exited = once(this.#child, 'exit')
    this.#child.kill('SIGTERM')
    await exited
  }
}

export async function freePort() {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  await new Promise(resolve => server.close(resolve))
  return port
}
