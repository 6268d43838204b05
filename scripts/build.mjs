// Builds the package: CommonJS, and for each entry point an ES module that re-exports it, so that `import` and
// `require` give the same classes in one process.
import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join, relative, sep } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { ENTRY_POINTS } from './entry-points.mjs'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const DIST = join(ROOT, 'dist')
const ESM = join(DIST, 'esm')
const require = createRequire(import.meta.url)

rmSync(DIST, { recursive: true, force: true })
execFileSync(process.execPath, [require.resolve('typescript/bin/tsc'), '-p', 'tsconfig.build.json'], {
  cwd: ROOT,
  stdio: 'inherit',
})
copyDeclarations()
writeFileSync(join(DIST, 'package.json'), '{ "type": "commonjs" }\n')
writeFileSync(join(ESM, 'package.json'), '{ "type": "module" }\n')
for (const module of Object.values(ENTRY_POINTS)) writeFace(module)
for (const module of Object.values(ENTRY_POINTS)) await checkFace(module)
writeCommand()
writeManifest()

/**
 * The declarations twice: TypeScript reads those of `dist` as CommonJS and those of `dist/esm` as ES modules. With
 * one copy, an ES module of Nest 12 would be an error (TS1479) to compilers before 5.8.
 */
function copyDeclarations() {
  for (const file of readdirSync(DIST, { recursive: true })) {
    if (file.endsWith('.d.ts')) cpSync(join(DIST, file), join(ESM, file))
  }
}

function writeFace(module) {
  const file = join(ESM, `${module}.js`)
  const target = relative(dirname(file), join(DIST, `${module}.js`))
    .split(sep)
    .join('/')
  const names = Object.keys(require(join(DIST, `${module}.js`))).sort()
  const nest = [...packagesOf(join(DIST, `${module}.js`))].filter(name => name.startsWith('@nestjs/')).sort()
  const lines = [
    ...(nest.length === 0
      ? []
      : [
          '// First, since Node 20 crashes when require() meets an ES module that an import() is about to load.',
        ]),
    ...nest.map(name => `import '${name}'`),
    `export {\n${names.map(name => `  ${name},\n`).join('')}} from '${target}'`,
  ]
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(file, `${lines.join('\n')}\n`)
}

/** The packages that a built file and the files that it requires need as soon as they are loaded. */
function packagesOf(file, seen = new Set()) {
  const packages = new Set()
  if (seen.has(file)) return packages
  seen.add(file)
  for (const [, name] of readFileSync(file, 'utf8').matchAll(/^(?:var|const) .*require\("([^"]+)"\)/gm)) {
    if (!name.startsWith('.')) packages.add(name)
    else for (const found of packagesOf(join(dirname(file), name), seen)) packages.add(found)
  }
  return packages
}

/** The command, as an ES module: the CommonJS build has no `import()`, which loads the application of the user. */
function writeCommand() {
  const packages = packagesOf(join(DIST, 'cli/mqtt.asyncapi-command.js'))
  const nest = [...packages].filter(name => name.startsWith('@nestjs/')).sort()
  const text = `#!/usr/bin/env node
if (process.argv[2] === 'asyncapi') {
  // First, since Node 20 crashes when require() meets an ES module that an import() is about to load.
${nest.map(name => `  await import('${name}')`).join('\n')}
}
const { main } = await import('../../cli/main.js')

const writeTo = stream => text => new Promise(resolve => stream.write(text, () => resolve()))
const code = await main(process.argv.slice(2), {
  cwd: process.cwd(),
  env: process.env,
  load: url => import(url),
  out: writeTo(process.stdout),
  error: writeTo(process.stderr),
})
// The application may have opened something when it was loaded.
process.exit(code)
`
  const file = join(ESM, 'cli/nestjs-mqtt.js')
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(file, text, { mode: 0o755 })
}

async function checkFace(module) {
  const required = require(join(DIST, `${module}.js`))
  const imported = await import(pathToFileURL(join(ESM, `${module}.js`)).href)
  const names = new Set([...Object.keys(required), ...Object.keys(imported)])
  const different = [...names].filter(name => required[name] !== imported[name])
  if (different.length > 0) {
    throw new Error(`import and require of dist/${module} give different values for ${different.join(', ')}`)
  }
}

function writeManifest() {
  const path = join(ROOT, 'package.json')
  const before = readFileSync(path, 'utf8')
  const manifest = JSON.parse(before)
  const entries = Object.entries(ENTRY_POINTS)
  manifest.exports = {
    ...Object.fromEntries(
      entries.map(([name, module]) => [
        name,
        {
          import: { types: `./dist/esm/${module}.d.ts`, default: `./dist/esm/${module}.js` },
          require: { types: `./dist/${module}.d.ts`, default: `./dist/${module}.js` },
        },
      ]),
    ),
    './package.json': './package.json',
  }
  // For `"moduleResolution": "node10"`, which does not read `exports`.
  manifest.typesVersions = {
    '*': Object.fromEntries(
      entries
        .filter(([name]) => name !== '.')
        .map(([name, module]) => [name.slice('./'.length), [`./dist/${module}.d.ts`]]),
    ),
  }
  const after = `${JSON.stringify(manifest, undefined, 2)}\n`
  if (after !== before) writeFileSync(path, after)
}
