// npm run shape: how the code of src is cut, against the limits that ARCHITECTURE.md promises. --list names the worst.
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'

const SRC = fileURLToPath(new URL('../src/', import.meta.url))
/** The lists of public names, and entry points that an application loads only when it asks for them. */
const ENTRY_POINTS = /^((client\/)?index\.ts$|(testing|health|opentelemetry|asyncapi|store|cli)\/)/

const sources = readdirSync(SRC, { recursive: true, encoding: 'utf8' })
  .filter(path => path.endsWith('.ts'))
  .map(path => ({ path, text: readFileSync(join(SRC, path), 'utf8') }))
  .map(({ path, text }) => ({
    path,
    lines: text.trimEnd().split('\n').length,
    tree: ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true),
  }))

const importers = new Map(sources.map(({ path }) => [path, new Set()]))
for (const { path, tree } of sources) {
  for (const statement of tree.statements) {
    const specifier = 'moduleSpecifier' in statement ? statement.moduleSpecifier?.text : undefined
    if (!specifier?.startsWith('.')) continue
    const target = relative(SRC, resolve(SRC, dirname(path), specifier)).replace(/\.js$/, '.ts')
    importers.get(target)?.add(path)
  }
}

const functions = []
const constructors = []
const bags = []

function visit(node, path, tree) {
  const at = () => {
    const { line } = tree.getLineAndCharacterOfPosition(node.getStart())
    return `${path}:${line + 1}`
  }
  if (ts.isFunctionLike(node) && node.body !== undefined) {
    const first = tree.getLineAndCharacterOfPosition(node.getStart()).line
    const last = tree.getLineAndCharacterOfPosition(node.end).line
    functions.push({ at: at(), count: last - first + 1 })
    if (ts.isConstructorDeclaration(node)) constructors.push({ at: at(), count: node.parameters.length })
  }
  if (ts.isObjectLiteralExpression(node) && isPassed(node)) bags.push({ at: at(), count: callbacksOf(node) })
  ts.forEachChild(node, child => visit(child, path, tree))
}

/** An argument of a call: what is returned, or declared, is no bag that is passed. */
function isPassed(node) {
  return (
    (ts.isCallExpression(node.parent) || ts.isNewExpression(node.parent)) && node.parent.expression !== node
  )
}

function callbacksOf(node) {
  return node.properties.filter(
    property =>
      ts.isMethodDeclaration(property) ||
      (ts.isPropertyAssignment(property) &&
        (ts.isArrowFunction(property.initializer) || ts.isFunctionExpression(property.initializer))),
  ).length
}

const own = sources.filter(({ path }) => !ENTRY_POINTS.test(path))
for (const { path, tree } of own) visit(tree, path, tree)

const byCount = list => [...list].sort((a, b) => b.count - a.count)
const quantile = (list, part) => byCount(list).at(Math.floor((list.length - 1) * (1 - part))).count
const sizes = own.map(({ path, lines }) => ({ at: path, count: lines }))
const lonely = own.filter(({ path, lines }) => lines < 40 && importers.get(path).size === 1)

const rows = [
  ['files in src, without entry points', own.length, 101, []],
  [
    'files under 40 lines with one importer',
    lonely.length,
    8,
    lonely.map(({ path, lines }) => ({ at: path, count: lines })),
  ],
  ['median lines of a file', quantile(sizes, 0.5), undefined, []],
  ['lines of the largest file', byCount(sizes)[0].count, 300, byCount(sizes)],
  ['lines of a function, 90th percentile', quantile(functions, 0.9), 25, []],
  ['lines of the longest function', byCount(functions)[0].count, 45, byCount(functions)],
  ['parameters of a constructor, most', byCount(constructors)[0].count, 5, byCount(constructors)],
  ['callbacks in one object literal, most', byCount(bags)[0].count, 5, byCount(bags)],
]
const isListed = process.argv.includes('--list')
for (const [name, value, limit, worst] of rows) {
  const isOver = limit !== undefined && value > limit
  if (isOver) process.exitCode = 1
  const verdict = limit === undefined ? '' : isOver ? `OVER ${limit}` : `ok (limit ${limit})`
  console.log(`${name.padEnd(42)} ${String(value).padStart(4)}  ${verdict}`)
  if (isListed) for (const { at, count } of worst.slice(0, 12)) console.log(`    ${at} ${count}`)
}
