import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const SAMPLE = fileURLToPath(new URL('..', import.meta.url))
const LIBRARY = fileURLToPath(new URL('../..', import.meta.url))
const READY = 'Press Ctrl-C to stop'

/** The sample, started as `npm run sample` starts it, on ports of its own. */
export class Sample {
  private constructor(
    readonly process: ChildProcess,
    readonly output: () => string,
    readonly url: string,
    readonly brokerUrl: string,
  ) {}

  static async start(env: Record<string, string> = {}, args: readonly string[] = []): Promise<Sample> {
    const ownFolder = mkdtempSync(join(tmpdir(), 'cold-chain-data-'))
    if (!existsSync(`${LIBRARY}/dist/index.js`)) spawnSync('npm', ['run', 'build'], { cwd: LIBRARY })
    const child = spawn(process.execPath, ['run.mjs', ...args], {
      cwd: SAMPLE,
      env: { ...process.env, PORT: '0', MQTT_PORT: '0', MQTT_URL: '', DATA_FOLDER: ownFolder, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    child.once('exit', () => rmSync(ownFolder, { recursive: true, force: true }))
    let output = ''
    for (const stream of [child.stdout, child.stderr])
      stream?.on('data', (chunk: Buffer) => {
        output += chunk.toString()
      })
    await isReady(child, () => output)
    const httpUrl = found(output, /^ {2}(http:\S+)$/m)
    return new Sample(child, () => output, httpUrl, found(output, /Broker +(mqtt:\S+)/))
  }

  async json(path: string): Promise<unknown> {
    const response = await fetch(`${this.url}${path}`)
    return JSON.parse(await response.text())
  }

  post(path: string, body: object = {}): Promise<Response> {
    return fetch(`${this.url}${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    })
  }

  /** Ends the sample like Ctrl-C. Returns exit code and signal. */
  async interrupt(): Promise<unknown[]> {
    if (this.process.exitCode !== null) return [this.process.exitCode, null]
    const ended = once(this.process, 'exit')
    this.process.kill('SIGINT')
    return ended
  }

  kill(): void {
    if (this.process.exitCode === null) this.process.kill('SIGKILL')
  }
}

function isReady(child: ChildProcess, output: () => string): Promise<void> {
  return new Promise((resolve, reject) => {
    child.stdout?.on('data', () => output().includes(READY) && resolve())
    child.once('exit', () => reject(new Error(`the sample did not start:\n${output()}`)))
  })
}

function found(text: string, pattern: RegExp): string {
  const value = pattern.exec(text)?.[1]
  if (value === undefined) throw new Error(`${pattern} is not in:\n${text}`)
  return value
}
