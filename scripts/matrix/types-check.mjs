import { execFile } from 'node:child_process'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const run = promisify(execFile)
const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const CONSUMER = join(ROOT, 'scripts/matrix/consumer.ts')
const TYPESCRIPTS = ['5.6', '6.0']

const STRICT = {
  target: 'es2022',
  strict: true,
  skipLibCheck: false,
  experimentalDecorators: true,
  emitDecoratorMetadata: true,
  esModuleInterop: true,
  noEmit: true,
  types: ['node'],
}

/** Compiles a consumer of every entry point, strict and with the declarations checked, in each module setting. */
export async function checkTypes(app) {
  const folder = join(app.folder, 'types')
  mkdirSync(folder, { recursive: true })
  const file = join(folder, 'tsconfig.json')
  for (const typescript of TYPESCRIPTS) {
    for (const settings of settingsOf(app.app, typescript)) {
      const compilerOptions = { ...STRICT, ...settings }
      writeFileSync(file, JSON.stringify({ compilerOptions, files: ['consumer.ts'] }))
      app.write('types/consumer.ts', app.read(CONSUMER))
      const tsc = ['exec', '--yes', `--package=typescript@${typescript}`, '--', 'tsc', '-p', file]
      await failsOnOurs(
        app.npm(tsc),
        `TypeScript ${typescript}, ${settings.module}, ${settings.moduleResolution}`,
      )
    }
  }
  // The build of the application would take it in.
  rmSync(folder, { recursive: true })
}

function settingsOf({ nest, modules }, typescript) {
  const node10 = { module: 'commonjs', moduleResolution: 'node10' }
  const legacy = typescript === '6.0' ? { ...node10, ignoreDeprecations: '6.0' } : node10
  const bundler = { module: 'preserve', moduleResolution: 'bundler' }
  const node = ['node16', 'nodenext'].map(module => ({ module, moduleResolution: module }))
  if (nest === 11) return [legacy, ...node, bundler]
  // In CommonJS the compilers before 5.8, and `node16`, refuse the ES modules of Nest 12 itself.
  if (modules === 'commonjs') return typescript === '6.0' ? [{ ...node[1] }, bundler] : [bundler]
  return [...node, bundler]
}

/** Errors in the declarations of other packages are not counted. */
async function failsOnOurs(compiling, title) {
  try {
    await compiling
  } catch (error) {
    const lines = String(error.stdout)
      .split('\n')
      .filter(line => line.includes('error TS'))
    const ours = lines.filter(line => !/node_modules\/(?!nestjs-mqtt\/)/.test(line))
    if (ours.length > 0 || lines.length === 0) throw Object.assign(error, { message: title })
    console.log(`        ${title}: errors in other packages only: ${lines[0]}`)
  }
}

/** Compiles the source of this package with the Nest of the application. */
export async function checkSource(app) {
  const file = join(app.parent, 'tsconfig.source.json')
  const nest = join(app.folder, 'node_modules/@nestjs/*')
  const compilerOptions = {
    rootDir: '/',
    module: 'esnext',
    moduleResolution: 'bundler',
    paths: { '@nestjs/*': [nest] },
    typeRoots: [join(ROOT, 'node_modules/@types')],
  }
  const include = [join(ROOT, 'src')]
  writeFileSync(file, JSON.stringify({ extends: join(ROOT, 'tsconfig.json'), compilerOptions, include }))
  await run(join(ROOT, 'node_modules/.bin/tsc'), ['-p', file, '--noEmit'])
}
