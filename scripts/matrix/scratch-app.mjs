import { execFile } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { docBlocks, RELATIVE_IMPORT } from '../doc-blocks.mjs'
import { checkStart } from './start-check.mjs'
import { checkStore } from './store-check.mjs'

const run = promisify(execFile)

/** Tools of the generated application that take long to install and do nothing here. */
const LEFT_OUT = /^(eslint|@eslint|typescript-eslint|prettier|oxlint|globals$|@nestjs\/mau|@vitest\/coverage)/

/** What a newcomer pastes, and what the page about testing adds. */
const PAGES = ['README.md', 'docs/testing.md']

/** What Nest, terminus and the platform decide about, so it has to be tried on each version. */
const OF_EACH_VERSION = {
  'src/forgotten.spec.ts': new URL('forgotten.spec.ts', import.meta.url),
  'src/seen-from-outside.spec.ts': new URL('seen-from-outside.spec.ts', import.meta.url),
  'src/terminus.spec.ts': new URL('terminus.spec.ts', import.meta.url),
  'src/storing.ts': new URL('storing.ts', import.meta.url),
  'same-classes.mjs': new URL('same-classes.mjs', import.meta.url),
}

const VITEST_CONFIG = `import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: { globals: true, include: ['src/**/*.spec.ts'], exclude: ['**/*.jest.spec.ts'] },
})
`

/** Runs npm under a version of Node, or under this one. */
export function npm(args, { node, cwd, env }) {
  const all = node === undefined ? args : ['exec', '--yes', `--package=node@${node}`, '--', 'npm', ...args]
  return run('npm', all, { cwd, env: { ...environment(), ...env }, maxBuffer: 64 * 1024 * 1024 })
}

/** An application that a generator made, with the packed package, the code of the README and that of the page about testing. */
export class ScratchApp {
  constructor(parent, app) {
    this.parent = parent
    this.folder = join(parent, 'app')
    this.app = app
  }

  async create(tarball) {
    const { generate, nest, aedes } = this.app
    mkdirSync(this.parent, { recursive: true })
    await this.npm(generate, { cwd: this.parent })
    this.change('package.json', manifest => {
      for (const name of Object.keys(manifest.devDependencies)) {
        if (LEFT_OUT.test(name)) delete manifest.devDependencies[name]
      }
      Object.assign(manifest.dependencies, {
        '@nestjs/microservices': `^${nest}.0.0`,
        '@nestjs/terminus': `^${nest}.0.0`,
        '@opentelemetry/api': '^1.9.0',
        '@opentelemetry/sdk-trace-base': '^2.0.0',
        libsql: '^0.5.0',
        zod: '^4.2.0',
        'nestjs-mqtt': `file:${tarball}`,
      })
      Object.assign(manifest.devDependencies, { aedes })
    })
    this.change('tsconfig.json', ({ compilerOptions }) => Object.assign(compilerOptions, this.app.tsconfig))
    this.writeCode()
    for (const [path, spec] of Object.entries(OF_EACH_VERSION)) this.write(path, this.read(spec))
    await this.npm(['install', '--no-audit', '--no-fund', '--prefer-offline'])
  }

  /** What is done on each version of Node. */
  steps(node) {
    return {
      build: () => this.npm(['run', 'build'], { node }),
      run: () => checkStart(this.folder, node),
      store: () => checkStore(this.folder, node),
      import: () => this.npm(['exec', '--yes', `--package=node@${node}`, '--', 'node', 'same-classes.mjs']),
      test: () => this.test(node),
    }
  }

  npm(args, options) {
    return npm(args, { cwd: this.folder, ...options })
  }

  /** Pastes the code of these pages, and returns how many lines had to be changed. */
  writeCode(pages = PAGES) {
    const other = this.app.runner === 'jest' ? '.vitest.' : '.jest.'
    const blocks = pages.flatMap(page => docBlocks(new URL(`../../${page}`, import.meta.url)))
    return blocks
      .filter(({ path }) => path !== undefined && !path.includes(other))
      .map(({ path, code }) => this.write(path, code))
      .reduce((changed, more) => changed + more, 0)
  }

  write(path, code) {
    const file = join(this.folder, path)
    mkdirSync(dirname(file), { recursive: true })
    let changed = 0
    // An ES module names the extension.
    const withExtension = (_, keyword, path) => {
      changed += 1
      return `${keyword} '${path}.js'`
    }
    writeFileSync(file, this.isModule ? code.replace(RELATIVE_IMPORT, withExtension) : code)
    return changed
  }

  read(path) {
    return readFileSync(path, 'utf8')
  }

  /**
   * Runs the tests. Where the generated Jest cannot load Nest, the generated test must fail for that reason, and all
   * tests must pass in Vitest.
   */
  async test(node) {
    const { jestNeedsNode = 0 } = this.app
    if (Number(node.split('.')[0]) >= jestNeedsNode) return this.npm(['test'], { node })
    const generated = await this.npm(['test', '--', 'src/app.controller.spec.ts'], { node }).catch(
      error => error,
    )
    if (!/Must use import to load ES Module: .*@nestjs/.test(generated.stderr))
      return this.npm(['test'], { node })
    await this.npm(['install', '--save-dev', '--no-audit', '--no-fund', '--prefer-offline', 'vitest@4'])
    this.write('vitest.config.mts', VITEST_CONFIG)
    await this.npm(['exec', 'vitest', 'run'], { node })
    return 'run, test in Vitest (Jest cannot load Nest)'
  }

  get isModule() {
    return JSON.parse(readFileSync(join(this.folder, 'package.json'), 'utf8')).type === 'module'
  }

  change(path, change) {
    const file = join(this.folder, path)
    const content = JSON.parse(readFileSync(file, 'utf8'))
    change(content)
    writeFileSync(file, JSON.stringify(content, undefined, 2))
  }
}

/** Without what npm sets for the script that runs this one. */
function environment() {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('npm_')))
}
