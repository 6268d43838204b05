import { existsSync, readFileSync, statSync } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, extname, join, relative, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { Type } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { type AsyncApiOptions, createAsyncApiDocument, toYaml } from '../asyncapi/index.js'
import { counted } from '../core/log-lines.js'
import { CliError, type CliHost } from './cli-host.js'

export interface AsyncApiArguments {
  readonly file: string
  readonly out: string | undefined
  readonly options: string | undefined
  readonly exportName: string | undefined
  readonly title: string | undefined
  readonly version: string | undefined
}

/** @throws CliError, MqttError */
export async function writeAsyncApi(given: AsyncApiArguments, host: CliHost): Promise<void> {
  const root = moduleIn(await load(given.file, host), given)
  const exported =
    given.options === undefined ? {} : optionsIn(await load(given.options, host), given.options)
  const options = withDefaults(exported, given, host)
  const app = await createApp(root, given.file)
  try {
    const document = await createAsyncApiDocument(app, options)
    const isYaml = /\.ya?ml$/i.test(given.out ?? '')
    const text = isYaml ? toYaml(document) : `${JSON.stringify(document, undefined, 2)}\n`
    if (given.out === undefined) return await host.out(text)
    const path = resolve(host.cwd, given.out)
    await mkdir(dirname(path), { recursive: true })
    await writeFile(path, text)
    const count = Object.keys(document.operations).length
    await host.error(`${relative(host.cwd, path)}: ${counted(count, 'operation')}\n`)
  } finally {
    await app.close()
  }
}

async function createApp(root: Type, file: string) {
  try {
    return await NestFactory.createApplicationContext(root, {
      preview: true,
      abortOnError: false,
      logger: ['error'],
    })
  } catch (cause) {
    throw new CliError(`Nest could not load ${root.name} of ${file}: ${textOf(cause)}`, { cause })
  }
}

async function load(file: string, host: CliHost): Promise<unknown> {
  const path = resolve(host.cwd, file)
  if (/^\.[cm]?tsx?$/.test(extname(path)))
    throw new CliError(
      `${file} is TypeScript source; build the application first, and specify the compiled file, such as dist/app.module.js`,
    )
  if (!existsSync(path))
    throw new CliError(
      `${file} does not exist in ${host.cwd}; build the application first, and specify the compiled file of the root module`,
    )
  if (statSync(path).isDirectory())
    throw new CliError(
      `${file} is a folder; specify the compiled file, such as ${join(file, 'app.module.js')}`,
    )
  try {
    return await host.load(pathToFileURL(path).href)
  } catch (cause) {
    throw new CliError(`${file} could not be loaded: ${textOf(cause)}`, { cause })
  }
}

/** The exports of a file. For a CommonJS file, `import()` returns them as the default export, and some of them by name. */
function exportsOf(loaded: unknown): [string, unknown][] {
  if (typeof loaded !== 'object' || loaded === null) return []
  const inner: unknown = Reflect.get(loaded, 'default')
  if (typeof inner !== 'object' || inner === null) return Object.entries(loaded)
  return Object.entries(Reflect.get(inner, '__esModule') === true ? inner : { ...inner, ...loaded })
}

function moduleIn(loaded: unknown, { file, exportName }: AsyncApiArguments): Type {
  const modules = exportsOf(loaded).flatMap(([name, value]): [string, Type][] =>
    isModule(value) ? [[name, value]] : [],
  )
  const wanted = exportName ?? (modules.length > 1 ? 'AppModule' : modules[0]?.[0])
  const found = modules.find(([name]) => name === wanted)?.[1]
  if (found !== undefined) return found
  const names = modules.map(([name]) => name).join(', ')
  if (modules.length === 0)
    throw new CliError(
      `${file} exports no class with @Module(); specify the compiled file of the root module, such as dist/app.module.js`,
    )
  if (exportName === undefined)
    throw new CliError(`${file} exports several modules: ${names}; choose one with --export <name>`)
  throw new CliError(`${file} exports no module named "${exportName}"; use one of: ${names}`)
}

/** The metadata keys that `@Module()` sets on a class. */
const MODULE_KEYS = ['imports', 'providers', 'controllers', 'exports']

function isModule(value: unknown): value is Type {
  return typeof value === 'function' && MODULE_KEYS.some(key => Reflect.hasMetadata(key, value))
}

function optionsIn(loaded: unknown, file: string): Partial<AsyncApiOptions> {
  const exported = new Map(exportsOf(loaded))
  const options = exported.get('asyncApi') ?? exported.get('default')
  if (typeof options === 'object' && options !== null && !Array.isArray(options)) return options
  throw new CliError(`${file} exports no options; export them as "asyncApi" or as the default export`)
}

function withDefaults(
  exported: Partial<AsyncApiOptions>,
  { file, title, version }: AsyncApiArguments,
  { cwd }: CliHost,
): AsyncApiOptions {
  const manifest = manifestAbove(dirname(resolve(cwd, file)))
  return {
    ...exported,
    title: title ?? exported.title ?? manifest.name ?? 'Application',
    version: version ?? exported.version ?? manifest.version ?? '0.0.0',
  }
}

/** Name and version in the nearest `package.json` that has a name. */
function manifestAbove(folder: string): { readonly name?: string; readonly version?: string } {
  const path = join(folder, 'package.json')
  if (existsSync(path)) {
    const { name, version }: { name?: string; version?: string } = JSON.parse(readFileSync(path, 'utf8'))
    if (name !== undefined) return { name, ...(version === undefined ? {} : { version }) }
  }
  const parent = dirname(folder)
  return parent === folder ? {} : manifestAbove(parent)
}

const textOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))
