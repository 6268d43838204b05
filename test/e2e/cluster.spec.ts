import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { Conductor } from '../../cluster/conductor.mjs'
import { Mosquitto } from '../support/mosquitto.js'

it('the processes of `npm run cluster` publish, store and handle, and all of it is found in their journals', async () => {
  const broker = await Mosquitto.start()
  const folder = mkdtempSync(join(tmpdir(), 'nestjs-mqtt-cluster-'))
  const said: string[] = []
  // Without a kill: each of them takes a broker many seconds.
  const conductor = new Conductor({ rounds: 0, mostMs: 0, say: line => said.push(line) })
  try {
    await conductor.run({
      folder,
      nodes: [{ url: broker.url, name: 'only' }],
      start: async () => {},
      isReady: () => true,
      children: () => [],
    })
    expect(said).toEqual([])
    expect(conductor.left).toBe(0)
    const evidence = conductor.evidence()
    expect(evidence.missing()).toEqual([])
    const { plain, storing } = Object.fromEntries(evidence.totals())
    expect(plain).toMatchObject({ handled: plain?.publishes, ends: { acknowledged: plain?.publishes } })
    expect(storing?.handled).toBe(storing?.publishes)
    expect(storing?.publishes).toBeGreaterThan(0)
    expect(plain?.publishes).toBeGreaterThan(0)
  } finally {
    conductor.end()
    await broker.stop()
    rmSync(folder, { recursive: true, force: true })
  }
})
