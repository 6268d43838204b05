import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { docBlocks, RELATIVE_IMPORT } from '../../scripts/doc-blocks.mjs'
import { Program } from '../support/lone-package.js'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const TSC = join(ROOT, 'node_modules/typescript/bin/tsc')
const APPS = join(ROOT, 'node_modules/.cache/doc-apps')
const run = promisify(execFile)

/** Strict checks, and the options with which `nest new` generates a project, such as `declaration`. */
const TSCONFIG = {
  compilerOptions: {
    declaration: true,
    isolatedModules: true,
    target: 'es2023',
    module: 'nodenext',
    moduleResolution: 'nodenext',
    strict: true,
    experimentalDecorators: true,
    emitDecoratorMetadata: true,
    esModuleInterop: true,
    skipLibCheck: true,
    rootDir: '.',
    outDir: 'dist',
    types: ['node', 'vitest/globals'],
  },
  include: ['**/*.ts'],
  exclude: ['dist'],
}

/** A running application. */
export interface Service {
  /** Sends SIGTERM. Resolves with the exit code; null if a signal has ended the service. */
  stop(): Promise<unknown>
}

/** The code blocks of a page, as an application in a folder of its own, where the packages of this project resolve. */
export class DocApp {
  readonly folder: string

  constructor(
    readonly page: string,
    readonly type: 'commonjs' | 'module' = 'commonjs',
    /** Only the blocks before this heading, such as `## Step 2`. @default all */
    private readonly until = '',
    /** The folder that contains that of the application. */
    parent = '',
  ) {
    const name = `${page}-${type}${until}`.replaceAll(/\W/g, '-')
    this.folder = join(APPS, parent, name)
  }

  /** Where a block without a path starts; there must be none. */
  get fragments(): string[] {
    return this.blocks
      .filter(block => block.path === undefined)
      .map(({ language, line }) => `${this.page}:${line} (${language})`)
  }

  write(): void {
    rmSync(this.folder, { recursive: true, force: true })
    this.file('package.json', JSON.stringify({ private: true, type: this.type }))
    this.file('tsconfig.json', JSON.stringify(TSCONFIG))
    for (const { path, code } of this.blocks) if (path !== undefined) this.file(path, this.imports(code))
  }

  /** Rejects with the errors of the compiler. */
  async compile(): Promise<void> {
    const errors = await errorsOf(this.folder)
    if (errors !== '') throw new Error(`${this.page} does not compile:\n${errors}`)
  }

  /** Starts a program of the page, or a compiled file. */
  program(path: string, env: Readonly<Record<string, string>>, args: readonly string[] = []): Program {
    return new Program(
      spawn(process.execPath, [path, ...args], { cwd: this.folder, env: { ...process.env, ...env } }),
    )
  }

  /** Path of a compiled file. */
  compiled(path: string): string {
    return join(this.folder, 'dist', path.replace(/\.ts$/, '.js'))
  }

  /** Runs `src/main.ts` as a service on these ports, until `stop`. Resolves when it has started. */
  async start(mqttUrl: string, port: number): Promise<Service> {
    const service = spawn(process.execPath, [this.compiled('src/main.ts')], {
      env: { ...process.env, MQTT_URL: mqttUrl, PORT: String(port) },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const errors: string[] = []
    service.stderr.on('data', chunk => errors.push(String(chunk)))
    const exited = once(service, 'exit').then(([code]: unknown[]) => code)
    if (!(await says(service.stdout, 'Nest application successfully started')))
      throw new Error(`the service ended before it started:\n${errors.join('')}`)
    const stop = (): Promise<unknown> => {
      service.kill('SIGTERM')
      return exited
    }
    return { stop }
  }

  private get blocks() {
    const file = join(ROOT, this.page)
    const end = this.until === '' ? -1 : readFileSync(file, 'utf8').split('\n').indexOf(this.until)
    return docBlocks(file).filter(
      ({ language, isForeign, line }) =>
        ['ts', 'js'].includes(language) && !isForeign && (end === -1 || line <= end),
    )
  }

  /** The pages are written for CommonJS; an ES module names the extension. */
  private imports(code: string): string {
    return this.type === 'commonjs' ? code : code.replace(RELATIVE_IMPORT, "$1 '$2.js'")
  }

  private file(path: string, text: string): void {
    const target = join(this.folder, path)
    mkdirSync(dirname(target), { recursive: true })
    writeFileSync(target, text)
  }
}

/**
 * Writes and compiles many pages in one run of the compiler, which takes a fraction of the time of one run per page. Each page
 * has a folder in `folder`, where nothing else is.
 * @returns the errors of a page
 */
export async function compilePages(
  pages: readonly string[],
  type: 'commonjs' | 'module',
): Promise<(page: string) => readonly string[]> {
  const folder = `pages-${type}`
  rmSync(join(APPS, folder), { recursive: true, force: true })
  const apps = new Map(pages.map(page => [page, new DocApp(page, type, '', folder)]))
  for (const app of apps.values()) app.write()
  writeFileSync(join(APPS, folder, 'tsconfig.json'), JSON.stringify(TSCONFIG))
  const text = await errorsOf(join(APPS, folder))
  // Details of an error follow it, indented.
  const errors = text.split('\n').filter(line => /^\S/.test(line))
  const isOf = (page: string) => (line: string) =>
    line.startsWith(`${basename(apps.get(page)?.folder ?? '')}/`)
  if (!errors.every(line => pages.some(page => isOf(page)(line)))) throw new Error(text)
  return page => errors.filter(isOf(page))
}

/** @returns what the compiler prints, with paths relative to the folder */
async function errorsOf(folder: string): Promise<string> {
  try {
    await run(process.execPath, [TSC, '-p', folder], { cwd: folder })
    return ''
  } catch (error) {
    return typeof error === 'object' && error !== null && 'stdout' in error
      ? String(error.stdout)
      : String(error)
  }
}

async function says(output: Readable, text: string): Promise<boolean> {
  for await (const line of createInterface({ input: output })) if (line.includes(text)) return true
  return false
}
