import { execFileSync, spawn } from 'node:child_process'
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
    writeFileSync(join(this.folder, name), code)
    const child = spawn(process.execPath, [name, ...args], { cwd: this.folder, timeout: LIMIT_MS })
    let output = ''
    for (const stream of [child.stdout, child.stderr]) stream.on('data', data => (output += data))
    return new Promise(resolve => child.on('close', exitCode => resolve({ code: exitCode, output })))
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
