import { type ChildProcessWithoutNullStreams, execFileSync, spawn } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const LIMIT_MS = 30_000

export interface Ended {
  readonly code: number | null
  readonly output: string
}

interface StartOptions {
  readonly args?: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  /** Path of the Node that runs it. @default that of this process */
  readonly execPath?: string
}

/** A program in a process of its own. */
export class Program {
  output = ''
  readonly ended: Promise<Ended>

  constructor(private readonly child: ChildProcessWithoutNullStreams) {
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', data => {
        this.output += data
      })
    this.ended = new Promise(resolve => child.on('close', code => resolve({ code, output: this.output })))
  }

  /** Resolves when this was printed. Rejects with the output when the program ends without it. */
  printed(text: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const look = (): void => {
        if (this.output.includes(text)) resolve()
      }
      this.child.stdout.on('data', look)
      this.ended.then(({ output }) => reject(new Error(`"${text}" was not printed: ${output}`)))
      look()
    })
  }

  /** Ends it with SIGKILL. */
  kill(): Promise<Ended> {
    this.child.kill('SIGKILL')
    return this.ended
  }

  terminate(): Promise<Ended> {
    this.child.kill('SIGTERM')
    return this.ended
  }
}

/** A folder in which the packed package is installed with its dependencies and nothing else, without a registry. */
export class LonePackage {
  readonly folder = mkdtempSync(join(tmpdir(), 'nestjs-mqtt-alone-'))

  constructor() {
    const args = ['pack', '--json', '--ignore-scripts', '--pack-destination', this.folder]
    const [{ filename }] = JSON.parse(execFileSync('npm', args, { cwd: ROOT, encoding: 'utf8' }))
    const target = join(this.folder, 'node_modules/nestjs-mqtt')
    mkdirSync(target, { recursive: true })
    execFileSync('tar', ['-xzf', join(this.folder, filename), '-C', target, '--strip-components=1'])
    this.installDependencies(target, target)
    writeFileSync(join(this.folder, 'package.json'), '{ "private": true }')
  }

  /** Names of everything that is installed. */
  get packages(): string[] {
    const modules = join(this.folder, 'node_modules')
    return readdirSync(modules).flatMap(name =>
      name.startsWith('@') ? readdirSync(join(modules, name)).map(inner => `${name}/${inner}`) : [name],
    )
  }

  /** Runs a program until it ends by itself. One that does not is killed, and has no exit code. */
  run(name: string, code: string, args: readonly string[] = []): Promise<Ended> {
    return this.start(name, code, { args }).ended
  }

  start(name: string, code: string, options: StartOptions = {}): Program {
    const { args = [], env = {}, execPath = process.execPath } = options
    writeFileSync(join(this.folder, name), code)
    return new Program(
      spawn(execPath, [name, ...args], {
        cwd: this.folder,
        timeout: LIMIT_MS,
        env: { ...process.env, ...env },
      }),
    )
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true })
  }

  /** @param from the installed package as this project has it, which may have packages of its own */
  private installDependencies(of: string, from: string): void {
    const { dependencies = {} } = JSON.parse(readFileSync(join(of, 'package.json'), 'utf8'))
    for (const name of Object.keys(dependencies)) {
      const target = join(this.folder, 'node_modules', name)
      const own = join(from, 'node_modules', name)
      if (existsSync(own) || existsSync(target)) continue
      const source = join(ROOT, 'node_modules', name)
      cpSync(source, target, { recursive: true })
      this.installDependencies(target, source)
    }
  }
}
