// Tries the packed package in applications as the generators of Nest make them, on every supported version of Node.
//   npm run matrix                                  every cell
//   npm run matrix -- nest-11:20.19 nest-12:24      some cells
//   npm run matrix -- nest-11                       one application on every version
//   npm run matrix -- client                        nestjs-mqtt/client alone, without Nest
//   npm run matrix -- new-user-11                   the path of a new user, with its times
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { APPS, NEWCOMERS, NODES } from './matrix/apps.mjs'
import { ClientAlone } from './matrix/client-alone.mjs'
import { tryNewcomer } from './matrix/newcomer.mjs'
import { ScratchApp } from './matrix/scratch-app.mjs'
import { checkSource, checkTypes } from './matrix/types-check.mjs'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'nestjs-mqtt-matrix-'))

try {
  const tarball = pack()
  const rows = []
  const newcomers = []
  for (const [name, nodes] of chosen(process.argv.slice(2))) {
    if (name in NEWCOMERS) newcomers.push(await newcomer(name, tarball))
    else rows.push(await tryApp(name, nodes, tarball))
  }
  print(rows)
  printNewcomers(newcomers)
  const isFailed =
    newcomers.some(({ failed }) => failed) || rows.some(({ cells }) => cells.some(({ failed }) => failed))
  if (isFailed) process.exitCode = 1
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
  const names = [...Object.keys(NEWCOMERS), 'client', ...Object.keys(APPS)]
  if (cells.length === 0) return names.map(name => [name, NODES])
  return cells.map(cell => {
    const [name, node] = cell.split(':')
    if (!names.includes(name)) throw new Error(`there is no row "${name}": ${names.join(', ')}`)
    return [name, node === undefined ? NODES : [node]]
  })
}

async function tryApp(name, nodes, tarball) {
  const parent = join(folder, name)
  const isClient = name === 'client'
  const app = isClient ? new ClientAlone(parent) : new ScratchApp(parent, APPS[name])
  const created = await attempt(`${name}: install`, () => app.create(tarball))
  const cells = []
  if (!created.failed && !isClient) cells.push({ node: 'types', ...(await tryTypes(name, app)) })
  for (const node of nodes) cells.push({ node, ...(created.failed ? created : await tryOn(name, app, node)) })
  rmSync(app.parent, { recursive: true, force: true })
  return { title: isClient ? 'nestjs-mqtt/client alone' : APPS[name].title, cells }
}

async function tryTypes(name, app) {
  const types = await attempt(`${name}: types`, () => checkTypes(app))
  if (types.failed) return { failed: 'types' }
  const source = await attempt(`${name}: the source of the package with its Nest`, () => checkSource(app))
  return source.failed ? { failed: 'source' } : { failed: false, verdict: 'strict' }
}

async function tryOn(name, app, node) {
  const steps = app.steps(node)
  let verdict = Object.keys(steps).join(', ')
  for (const [step, work] of Object.entries(steps)) {
    const result = await attempt(`${name} on Node ${node}: ${step}`, work)
    if (result.failed) return { ...result, failed: step }
    if (typeof result.value === 'string') verdict = `build, ${result.value}`
  }
  return { failed: false, verdict }
}

async function newcomer(name, tarball) {
  const parent = join(folder, name)
  const { failed, value } = await attempt(name, () => tryNewcomer(parent, NEWCOMERS[name], tarball))
  rmSync(parent, { recursive: true, force: true })
  return { title: NEWCOMERS[name].title, failed, measured: value ?? {} }
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
  if (rows.length === 0) return
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

function printNewcomers(rows) {
  if (rows.length === 0) return
  const columns = [...new Set(rows.flatMap(({ measured }) => Object.keys(measured)))]
  const units = columns.map(column => (column === 'own lines' ? column : `${column} (s)`))
  console.log(`\n| path of a new user | ${units.join(' | ')} |`)
  console.log(`|---|${columns.map(() => '---|').join('')}`)
  for (const { title, failed, measured } of rows)
    console.log(
      `| ${title} | ${columns.map(column => measured[column] ?? '').join(' | ')} |${failed ? ' failed' : ''}`,
    )
}
