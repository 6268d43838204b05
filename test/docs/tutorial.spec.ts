import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { docBlocks } from '../../scripts/doc-blocks.mjs'
import { eventually } from '../support/eventually.js'
import { freePort } from '../support/free-port.js'
import type { Ended, Program } from '../support/lone-package.js'
import { Mosquitto } from '../support/mosquitto.js'
import { DocApp } from './doc-app.js'

/** The heading behind each step. */
const ENDS = [
  '## Step 2: the service',
  '## Step 3: alarms that are not lost',
  '## Step 4: commands',
  '## Step 5: who is online',
  '## Step 6: a bad link',
  '## Where to go from here',
]

const PAGE = fileURLToPath(new URL('../../docs/tutorial.md', import.meta.url))

/** The files of a project that `nest new` has created, in part. */
const GENERATED = [
  'src/app.controller.spec.ts',
  'src/app.controller.ts',
  'src/app.module.ts',
  'src/app.service.ts',
  'src/main.ts',
  'test/app.e2e-spec.ts',
  'test/jest-e2e.json',
  'tsconfig.json',
]

let broker: Mosquitto
let port: number
let running: Program[]

beforeEach(async () => {
  broker = await Mosquitto.start()
  port = await freePort()
  running = []
})
afterEach(async () => {
  await Promise.all(running.map(program => program.terminate()))
  await broker.stop()
})

function start(app: DocApp, path: string, truckId = '7', periodMs = '20'): Program {
  const env = { MQTT_URL: broker.url, PORT: String(port), PERIOD_MS: periodMs, NO_COLOR: '1' }
  const program = app.program(path, env, [truckId])
  running.push(program)
  return program
}

const truck = (app: DocApp, id: string): Program => start(app, 'dist/src/truck.js', id)

async function service(app: DocApp): Promise<Program> {
  const program = start(app, 'dist/src/main.js')
  await program.printed('Nest application successfully started')
  const isListening = () =>
    fetch(url(''), { headers }).then(
      () => true,
      () => false,
    )
  await eventually(isListening)
  return program
}

function terminate(program: Program): Promise<Ended> {
  running = running.filter(other => other !== program)
  return program.terminate()
}

const url = (path: string): string => `http://localhost:${port}/${path}`
const headers = { connection: 'close', 'content-type': 'application/json' }
const get = async (path: string) => (await fetch(url(path), { headers })).json()
const count = async (path: string) => Object.keys(Object(await get(path))).length

/** The files of the page up to the end of a step. */
function stepped(step: number): DocApp {
  const app = new DocApp('docs/tutorial.md', 'commonjs', ENDS[step - 1])
  beforeAll(async () => {
    app.write()
    await app.compile()
  }, 120_000)
  return app
}

describe('step 1 of the tutorial', () => {
  const app = stepped(1)

  it('has a truck that publishes until SIGTERM', async () => {
    const program = truck(app, '7')
    // While the truck connects, only the newest temperature is kept.
    await program.printed('°C: sent')
    expect(await terminate(program)).toMatchObject({ code: 0 })
  })

  it('deletes every generated file that could refer to a deleted one', () => {
    const project = mkdtempSync(join(tmpdir(), 'nestjs-mqtt-tutorial-'))
    for (const path of GENERATED) {
      mkdirSync(dirname(join(project, path)), { recursive: true })
      writeFileSync(join(project, path), '')
    }
    const [command = ''] = docBlocks(PAGE).flatMap(({ code }) => /^rm .+$/m.exec(code) ?? [])
    execFileSync('sh', ['-c', command], { cwd: project })
    expect(readdirSync(project, { recursive: true })).toEqual(['src', 'tsconfig.json'])
    rmSync(project, { recursive: true })
  })

  it('has a truck that keeps publishing for as long as it runs', async () => {
    const program = start(app, 'dist/src/truck.js', '7', '1')
    // Without a limit, it would be warmer than its contract allows after 196 measurements.
    await eventually(() => program.output.split('°C').length > 250)
    expect(await terminate(program)).toMatchObject({ code: 0 })
  })
})

describe('step 2 of the tutorial', () => {
  const app = stepped(2)

  it('has a service that lists the last temperature of each truck', async () => {
    await service(app)
    truck(app, '7')
    truck(app, '8')
    await eventually(async () => (await count('trucks')) === 2)
    expect(await get('trucks')).toEqual({ 7: expect.any(Number), 8: expect.any(Number) })
  })
})

describe('step 3 of the tutorial', () => {
  const app = stepped(3)

  it('has an alarm that arrives although the service was down when it was sent', async () => {
    expect(await terminate(await service(app))).toMatchObject({ code: 0 })
    await truck(app, '7').printed('alarm: acknowledged')
    await service(app)
    await eventually(async () => (await count('alarms')) === 1)
    expect(await get('alarms')).toEqual(['truck 7: -14.5 °C'])
  })
})

describe('step 4 of the tutorial', () => {
  const app = stepped(4)
  const cool = (id: string) =>
    fetch(url(`trucks/${id}/cool`), { method: 'POST', headers, body: JSON.stringify({ celsius: -40 }) })

  it('has a command that the truck executes', async () => {
    await service(app)
    const program = truck(app, '7')
    await program.printed('alarm: acknowledged')
    const response = await cool('7')
    expect({ status: response.status, body: await response.json() }).toEqual({
      status: 201,
      body: { accepted: true },
    })
    await eventually(async () => Object(await get('trucks'))['7'] < -15)
  })

  it('responds with 504 for a truck that does not exist', async () => {
    await service(app)
    expect((await cool('9')).status).toBe(504)
  })
})

describe('step 5 of the tutorial', () => {
  const app = stepped(5)

  it('lists the trucks that are online', async () => {
    await service(app)
    truck(app, '7')
    const other = truck(app, '8')
    await eventually(async () => (await count('online')) === 2)
    expect(await terminate(other)).toMatchObject({ code: 0 })
    await eventually(async () => (await count('online')) === 1)
    expect(await get('online')).toEqual(['7'])
  })
})

describe('step 6 of the tutorial', () => {
  const app = stepped(6)

  it('has a truck that sends its last temperature over a link that carries a tenth of its data', async () => {
    await service(app)
    const program = start(app, 'dist/src/bad-link.js', '9')
    await program.printed('superseded:')
    const [superseded = 0, sent = 0] = ['superseded', 'sent'].map(what =>
      Number(new RegExp(`${what}: (\\d+)`).exec(program.output)?.[1]),
    )
    expect(superseded).toBeGreaterThan(sent)
    expect(superseded + sent).toBe(2_001)
    await eventually(async () => Object(await get('trucks'))['9'] === 20)
  })
})
