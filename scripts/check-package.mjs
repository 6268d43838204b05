// Checks the packed package: what is in it, that its pages name no file outside of it, its size, and what tools make of it.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, posix } from 'node:path'
import { fileURLToPath } from 'node:url'
import { docBlocks } from './doc-blocks.mjs'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const REQUIRED = ['README.md', 'LICENSE', 'CHANGELOG.md', 'SECURITY.md', 'dist/index.js', 'dist/esm/index.js']
/** What `npm install` downloads, and what it takes on the disk, without dependencies. */
const MAX_PACKED_BYTES = 680_000
const MAX_UNPACKED_BYTES = 3_100_000

/** Files of the reader's own application. Its `src` is known, too, and every file that a page has the code of. */
const OF_THE_READER = /^(src\/.*|(src\/)?main\.ts|package\.json|tsconfig\.json|vitest\.config\.m?ts)$/

const folder = mkdtempSync(join(tmpdir(), 'nestjs-mqtt-package-'))
try {
  const { filename, size, unpackedSize, files } = pack()
  const paths = new Set(files.map(({ path }) => path))
  const problems = [
    ...REQUIRED.filter(path => !paths.has(path)).map(path => `${path} is missing`),
    ...[...paths]
      .filter(path => path.endsWith('.md'))
      .flatMap(path => [...brokenLinks(path, paths), ...foreignPaths(path, paths)]),
    ...(size > MAX_PACKED_BYTES ? [`${size} bytes packed; the budget is ${MAX_PACKED_BYTES}`] : []),
    ...(unpackedSize > MAX_UNPACKED_BYTES
      ? [`${unpackedSize} bytes unpacked; the budget is ${MAX_UNPACKED_BYTES}`]
      : []),
  ]
  for (const problem of problems) console.error(`the package: ${problem}`)
  if (problems.length > 0) process.exitCode = 1
  console.log(`${paths.size} files, ${size} bytes packed, ${unpackedSize} bytes unpacked`)
  const tarball = join(folder, filename)
  run('publint', ['run', tarball, '--strict'])
  run('attw', [tarball])
} finally {
  rmSync(folder, { recursive: true, force: true })
}

function pack() {
  const args = ['pack', '--json', '--ignore-scripts', '--pack-destination', folder]
  return JSON.parse(execFileSync('npm', args, { cwd: ROOT, encoding: 'utf8' }))[0]
}

function proseOf(page) {
  return readFileSync(join(ROOT, page), 'utf8').replace(/^```.*?^```/gms, '')
}
function isIn(target, paths) {
  return paths.has(target) || [...paths].some(path => path.startsWith(`${target}/`))
}

/** Paths in back-ticks that are neither in the package nor in the application of the reader. */
function foreignPaths(page, paths) {
  const ofPage = docBlocks(join(ROOT, page)).map(({ path }) => path)
  const folders = readdirSync(ROOT)
  return [...proseOf(page).matchAll(/`([\w.@/*-]+)`/g)]
    .map(([, path]) => path.replace(/\/$/, ''))
    .filter(
      path =>
        /\w\.(ts|mts|cts|js|mjs|cjs|json|md|ya?ml|sh)$/.test(path) || folders.includes(path.split('/')[0]),
    )
    .filter(path => path.includes('/') || path.includes('.'))
    .filter(path => !isIn(path, paths) && !ofPage.includes(path) && !OF_THE_READER.test(path))
    .map(path => `${page} names ${path}, which is not in it`)
}

/** Links of a page to files that the package does not have. */
function brokenLinks(page, paths) {
  const targets = [...proseOf(page).matchAll(/\]\(([^)\s#]+)[^)]*\)/g)].map(([, target]) => target)
  return targets
    .filter(target => !/^[a-z]+:/.test(target))
    .map(target => posix.join(posix.dirname(page), target))
    .filter(target => !isIn(target, paths))
    .map(target => `${page} links to ${target}, which is not in it`)
}

function run(command, args) {
  try {
    execFileSync(join(ROOT, 'node_modules/.bin', command), args, { cwd: ROOT, stdio: 'inherit' })
  } catch {
    process.exitCode = 1
  }
}
