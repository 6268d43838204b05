import { execFile } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { problemsOf } from '../support/asyncapi.js'
import { freePort } from '../support/free-port.js'
import { DocApp, type Service } from './doc-app.js'

const COMMAND = fileURLToPath(new URL('../../dist/esm/cli/nestjs-mqtt.js', import.meta.url))
const run = promisify(execFile)

/** Runs the command in the folder of an application, and returns what it wrote. */
async function command(app: DocApp, ...args: string[]) {
  return await run(process.execPath, [COMMAND, ...args], { cwd: app.folder }).catch((error: unknown) => ({
    stdout: String(Reflect.get(Object(error), 'stdout')),
    stderr: String(Reflect.get(Object(error), 'stderr')),
  }))
}

const OPERATIONS = [
  'DevicesController.onTelemetry',
  'send.fleet.alarms',
  'send.devices.deviceId.commands.reboot',
]

describe.each(['commonjs', 'module'] as const)(
  'nestjs-mqtt asyncapi, for docs/asyncapi.md as %s',
  { timeout: 60_000 },
  type => {
    const app = new DocApp('docs/asyncapi.md', type)

    beforeAll(async () => {
      app.write()
      await app.compile()
    })

    it('writes the document as a file, without a broker', async () => {
      const args = ['asyncapi', 'dist/src/app.module.js', '--options', 'dist/src/asyncapi.js']
      const { stderr } = await command(app, ...args, '--out', 'out/asyncapi.yaml')
      expect(stderr).toBe('out/asyncapi.yaml: 3 operations\n')
      expect(await problemsOf(readFileSync(join(app.folder, 'out/asyncapi.yaml'), 'utf8'))).toEqual([])
      const { stdout } = await command(app, ...args)
      expect(JSON.parse(stdout)).toMatchObject({
        info: { title: 'Fleet service', version: '1.0.0' },
        servers: { broker: { host: 'broker.example.com:8883' } },
      })
      expect(Object.keys(JSON.parse(stdout).operations)).toEqual(OPERATIONS)
    })

    it('takes title and version from package.json or the command line', async () => {
      writeFileSync(
        join(app.folder, 'package.json'),
        JSON.stringify({ name: 'fleet', version: '7.0.0', type }),
      )
      const { stdout } = await command(app, 'asyncapi', 'dist/src/app.module.js', '--title', 'Mine')
      expect(JSON.parse(stdout).info).toEqual({ title: 'Mine', version: '7.0.0' })
    })

    it.each([
      [['asyncapi', 'dist/src/nowhere.js'], 'dist/src/nowhere.js does not exist'],
      [
        ['asyncapi', 'src/app.module.ts'],
        'src/app.module.ts is TypeScript source; build the application first',
      ],
      [['asyncapi', 'dist'], 'dist is a folder'],
      [['asyncapi', 'dist/src/topics.js'], 'dist/src/topics.js exports no class with @Module()'],
      [
        ['asyncapi', 'dist/src/app.module.js', '--export', 'Other'],
        'exports no module named "Other"; use one of: AppModule',
      ],
      [
        ['asyncapi', 'dist/src/app.module.js', '--options', 'dist/src/topics.js'],
        'exports no options; export them as "asyncApi"',
      ],
      [['asyncapi', 'dist/src/app.module.js', '--nonsense'], 'unknown option "--nonsense"; see --help'],
      [['asyncapi'], 'the module file is missing'],
      [['openapi'], 'unknown command "openapi"'],
    ])('rejects %j', async (args, problem) => {
      const { stdout, stderr } = await command(app, ...args)
      expect(stdout).toBe('')
      expect(stderr).toMatch(/^nestjs-mqtt: /)
      expect(stderr).toContain(problem)
      expect(stderr).not.toContain('    at ')
    })
  },
)

describe('the application of docs/asyncapi.md', () => {
  const app = new DocApp('docs/asyncapi.md')
  let service: Service
  let port: number

  beforeAll(async () => {
    app.write()
    await app.compile()
    port = await freePort()
    service = await app.start(`mqtt://127.0.0.1:${await freePort()}`, port)
  })

  afterAll(() => service.stop())

  it('serves the page and the document', async () => {
    const get = async (path: string): Promise<string> => {
      const response = await fetch(`http://localhost:${port}/${path}`, { headers: { connection: 'close' } })
      return response.text()
    }
    expect(await get('asyncapi')).toContain('DevicesController.onTelemetry')
    expect(Object.keys(JSON.parse(await get('asyncapi-json')).operations)).toEqual(OPERATIONS)
    expect(await problemsOf(await get('asyncapi-yaml'))).toEqual([])
  })
})
