// Tries the packed package in applications as the generators of Nest make them, on every supported version of Node.
//   npm run matrix                                  every cell
//   npm run matrix -- nest-11:20.19 nest-12:24      some cells
//   npm run matrix -- nest-11                       one application on every version
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { APPS, NODES } from './matrix/apps.mjs'
import { ScratchApp } from './matrix/scratch-app.mjs'
import { checkStart } from './matrix/start-check.mjs'
import { checkSource, checkTypes } from './matrix/types-check.mjs'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'nestjs-mqtt-matrix-'))

try {
  const tarball = pack()
  const rows = []
  for (const [name, nodes] of chosen(process.argv.slice(2))) rows.push(await tryApp(name, nodes, tarball))
  print(rows)
  if (rows.some(({ cells }) => cells.some(({ failed }) => failed))) process.exitCode = 1
} finally {
  rmSync(folder, { recursive: true, force: true })
}

function pack() {
  const args = ['pack', '--json', '--silent', '--pack-destination', folder]
  const output = execFileSync('npm', args, {
    cwd: ROOT,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  // prepack prints before the JSON.
  const [{ filename }] = JSON.parse(output.slice(output.search(/^\[$/m)))
  return join(folder, filename)
}

/** The applications, each with the versions of Node to try it on. */
function chosen(cells) {
  if (cells.length === 0) return Object.keys(APPS).map(name => [name, NODES])
  return cells.map(cell => {
    const [name, node] = cell.split(':')
    if (!(name in APPS)) throw new Error(`there is no application "${name}": ${Object.keys(APPS).join(', ')}`)
    return [name, node === undefined ? NODES : [node]]
  })
}

async function tryApp(name, nodes, tarball) {
  const app = new ScratchApp(join(folder, name), APPS[name])
  const created = await attempt(`${name}: install`, () => app.create(tarball))
  const cells = []
  if (!created.failed) cells.push({ node: 'types', ...(await tryTypes(name, app)) })
  for (const node of nodes) cells.push({ node, ...(created.failed ? created : await tryOn(name, app, node)) })
  rmSync(app.parent, { recursive: true, force: true })
  return { title: APPS[name].title, cells }
}

async function tryTypes(name, app) {
  const types = await attempt(`${name}: types`, () => checkTypes(app))
  if (types.failed) return { failed: 'types' }
  const source = await attempt(`${name}: the source of the package with its Nest`, () => checkSource(app))
  return source.failed ? { failed: 'source' } : { failed: false, verdict: 'strict' }
}

async function tryOn(name, app, node) {
  const steps = {
    build: () => app.npm(['run', 'build'], { node }),
    run: () => checkStart(app.folder, node),
    test: () => app.test(node),
  }
  let verdict = 'build, run, test'
  for (const [step, work] of Object.entries(steps)) {
    const result = await attempt(`${name} on Node ${node}: ${step}`, work)
    if (result.failed) return { ...result, failed: step }
    if (typeof result.value === 'string') verdict = `build, ${result.value}`
  }
  return { failed: false, verdict }
}

async function attempt(title, work) {
  const startMs = performance.now()
  try {
    const value = await work()
    console.log(`ok      ${title} (${Math.round((performance.now() - startMs) / 1_000)} s)`)
    return { failed: false, value }
  } catch (error) {
    console.log(`FAILED  ${title}: ${error.message}\n${error.stdout ?? ''}${error.stderr ?? ''}`)
    return { failed: 'install' }
  }
}

function print(rows) {
  const nodes = [...new Set(rows.flatMap(({ cells }) => cells.map(({ node }) => node)))]
  const titles = nodes.map(node => (node === 'types' ? 'types' : `Node ${node}`))
  console.log(`\n| application | ${titles.join(' | ')} |`)
  console.log(`|---|${nodes.map(() => '---|').join('')}`)
  for (const { title, cells } of rows) {
    const verdicts = nodes.map(node => verdict(cells.find(cell => cell.node === node)))
    console.log(`| ${title} | ${verdicts.join(' | ')} |`)
  }
}

function verdict(cell) {
  if (cell === undefined) return ''
  return cell.failed ? `${cell.failed} failed` : cell.verdict
}
