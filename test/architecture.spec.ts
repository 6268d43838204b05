import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { cruise, type ICruiseResult } from 'dependency-cruiser'
import extractDepcruiseOptions from 'dependency-cruiser/config-utl/extract-depcruise-options'
import extractTSConfig from 'dependency-cruiser/config-utl/extract-ts-config'
import ts from 'typescript'
import { afterEach, describe, expect, it } from 'vitest'

const ROOT = realpathSync(join(dirname(fileURLToPath(import.meta.url)), '..'))
const FEWEST_FILES = 30

const gate = await extractDepcruiseOptions(join(ROOT, '.dependency-cruiser.mjs'))
const tsConfig = extractTSConfig(join(ROOT, 'tsconfig.json'))

/** Runs the gate, as `npm run lint` does, over the `src` of a directory. */
async function runGate(baseDir: string): Promise<ICruiseResult> {
  const { output } = await cruise(['src'], { ...gate, baseDir }, gate.enhancedResolveOptions, { tsConfig })
  if (typeof output === 'string')
    throw new Error('dependency-cruiser gave a report where a result was expected')
  return output
}

const sources = readdirSync(join(ROOT, 'src'), { recursive: true, withFileTypes: true })
  .filter(entry => entry.isFile())
  .map(entry => relative(ROOT, join(entry.parentPath, entry.name)))
  .filter(path => path.endsWith('.ts'))
  .toSorted()
  .map(path => ({ path, text: readFileSync(join(ROOT, path), 'utf8') }))

describe('the dependencies of src', () => {
  it('follow every rule', async () => {
    const { modules, summary } = await runGate(ROOT)
    const seen = modules.map(module => module.source).filter(source => source.startsWith('src/'))
    expect(seen.length).toBeGreaterThanOrEqual(FEWEST_FILES)
    expect(seen.toSorted()).toEqual(sources.map(source => source.path))
    expect(summary.violations.map(({ rule, from, to }) => `${rule.name}: ${from} → ${to}`)).toEqual([])
  })
})

interface Probe {
  readonly rule: string
  readonly file: string
  /** The content that breaks the rule. */
  readonly wrong: string
  /** Content of the same file that keeps it. */
  readonly right?: string
  /** Files that have to be there for it, without any import. */
  readonly others?: readonly string[]
}

const value = (from: string) => `import * as part from '${from}'\nexport const used = part`
const typeOnly = (from: string) => `import type * as part from '${from}'\nexport type Used = typeof part`

const PROBES: readonly Probe[] = [
  { rule: 'no-cycles', file: 'src/core/loop.ts', wrong: value('./loop.js') },
  {
    rule: 'no-orphans',
    file: 'src/core/alone.ts',
    wrong: 'export {}',
    right: value('./other.js'),
    others: ['src/core/other.ts'],
  },
  {
    rule: 'core-decides',
    file: 'src/core/outbound/a.ts',
    wrong: value('node:buffer'),
    right: value('../errors.js'),
    others: ['src/core/errors.ts'],
  },
  { rule: 'core-decides', file: 'src/core/outbound/a.ts', wrong: typeOnly('mqtt-packet') },
  {
    rule: 'core-decides',
    file: 'src/core/a.ts',
    wrong: value('../client/b.js'),
    others: ['src/client/b.ts'],
  },
  {
    rule: 'core-decides',
    file: 'src/core/a.ts',
    wrong: typeOnly('../options/b.js'),
    others: ['src/options/b.ts'],
  },
  {
    rule: 'client-knows-no-nest',
    file: 'src/client/a.ts',
    wrong: typeOnly('@nestjs/common'),
    right: value('node:net'),
  },
  {
    rule: 'client-knows-no-nest',
    file: 'src/client/a.ts',
    wrong: value('rxjs'),
    right: value('../core/b.js'),
    others: ['src/core/b.ts'],
  },
  {
    rule: 'client-knows-no-nest',
    file: 'src/client/a.ts',
    wrong: value('../transport/b.js'),
    right: value('../options/b.js'),
    others: ['src/transport/b.ts', 'src/options/b.ts'],
  },
  {
    rule: 'options-stand-on-core',
    file: 'src/options/a.ts',
    wrong: value('../client/b.js'),
    right: value('../core/b.js'),
    others: ['src/client/b.ts', 'src/core/b.ts'],
  },
  {
    rule: 'plain-name-knows-no-nest',
    file: 'src/transport/plain.ts',
    wrong: value('@nestjs/common'),
    right: value('node:net'),
  },
  {
    rule: 'plain-name-knows-no-nest',
    file: 'src/transport/plain.ts',
    wrong: value('./mqtt.context.js'),
    others: ['src/transport/mqtt.context.ts'],
  },
  {
    rule: 'entry-points-are-leaves',
    file: 'src/client/a.ts',
    wrong: value('../testing/b.js'),
    others: ['src/testing/b.ts'],
  },
  { rule: 'only-mqtt', file: 'src/client/other.ts', wrong: value('mqtt'), right: typeOnly('mqtt') },
  {
    rule: 'only-mqtt-packet',
    file: 'src/client/other.ts',
    wrong: value('mqtt-packet'),
    right: typeOnly('mqtt-packet'),
  },
  {
    rule: 'only-socks',
    file: 'src/client/connection/other.ts',
    wrong: value('socks'),
    right: typeOnly('socks'),
  },
  {
    rule: 'only-libsql',
    file: 'src/store/other.ts',
    wrong: value('libsql'),
    right: typeOnly('libsql'),
  },
  {
    rule: 'only-@nestjs/terminus',
    file: 'src/testing/other.ts',
    wrong: value('@nestjs/terminus'),
    right: typeOnly('@nestjs/terminus'),
  },
  {
    rule: 'only-@valibot/to-json-schema',
    file: 'src/testing/other.ts',
    wrong: value('@valibot/to-json-schema'),
    right: typeOnly('@valibot/to-json-schema'),
  },
  {
    rule: 'only-@opentelemetry',
    file: 'src/testing/other.ts',
    wrong: value('@opentelemetry/api'),
    right: typeOnly('@opentelemetry/api'),
  },
  { rule: 'only-aedes', file: 'src/testing/other.ts', wrong: value('aedes'), right: typeOnly('aedes') },
  { rule: 'only-valibot', file: 'src/client/other.ts', wrong: value('valibot'), right: typeOnly('valibot') },
]

describe('the dependency check fails', () => {
  const made: string[] = []
  afterEach(() => {
    for (const directory of made.splice(0)) rmSync(directory, { recursive: true })
  })

  /** A project with the layout of this one, its packages, and these files. */
  function projectWith(files: Readonly<Record<string, string>>): string {
    const directory = realpathSync(mkdtempSync(join(tmpdir(), 'gate-')))
    made.push(directory)
    symlinkSync(join(ROOT, 'node_modules'), join(directory, 'node_modules'))
    writeFileSync(join(directory, 'package.json'), readFileSync(join(ROOT, 'package.json')))
    for (const [path, text] of Object.entries(files)) {
      mkdirSync(dirname(join(directory, path)), { recursive: true })
      writeFileSync(join(directory, path), `${text}\n`)
    }
    return directory
  }

  async function brokenRules(probe: Probe, content: string): Promise<string[]> {
    const others = (probe.others ?? []).map((path): [string, string] => [path, 'export {}'])
    const directory = projectWith({ ...Object.fromEntries(others), [probe.file]: content })
    const { modules, summary } = await runGate(directory)
    const unresolved = modules
      .flatMap(module => module.dependencies)
      .filter(dependency => dependency.couldNotResolve)
    expect(unresolved.map(dependency => dependency.module)).toEqual([])
    return summary.violations.filter(({ from }) => from === probe.file).map(({ rule }) => rule.name)
  }

  it('for a violation of each rule', () => {
    const rules = (gate.ruleSet?.forbidden ?? []).map(rule => rule.name)
    expect(rules.length).toBeGreaterThan(0)
    expect([...new Set(PROBES.map(probe => probe.rule))].toSorted()).toEqual(rules.toSorted())
  })

  it('and reports each rule as an error, not as a warning', () => {
    for (const rule of gate.ruleSet?.forbidden ?? []) expect(rule.severity, rule.name).toBe('error')
  })

  it.each(PROBES)('$rule: $file must not say $wrong', async probe => {
    expect(await brokenRules(probe, probe.wrong)).toContain(probe.rule)
    expect(await brokenRules(probe, probe.right ?? 'export {}')).not.toContain(probe.rule)
  })
})

describe('the source files', () => {
  it('are all checked', () => {
    expect(sources.length).toBeGreaterThanOrEqual(FEWEST_FILES)
    expect(sources.map(source => source.path)).toContain('src/index.ts')
  })

  it.each(sources)('$path has at most 300 lines', ({ text }) => {
    expect(text.trimEnd().split('\n').length).toBeLessThanOrEqual(300)
  })

  it.each(sources)('$path has no TODO or FIXME', ({ text }) => {
    expect(text.match(/\b(TODO|FIXME|XXX|HACK)\b/g) ?? []).toEqual([])
  })

  it.each(sources)('$path does not switch the compiler or the linter off', ({ text }) => {
    expect(text.match(/@ts-(ignore|expect-error|nocheck)|biome-ignore|eslint-disable/g) ?? []).toEqual([])
  })

  /** What must not be written in a file, with the line. */
  function shortcuts(path: string, text: string): string[] {
    const file = ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true)
    const found: string[] = []
    const note = (node: ts.Node, what: string) => {
      found.push(`${what} in line ${file.getLineAndCharacterOfPosition(node.getStart()).line + 1}`)
    }
    const visit = (node: ts.Node): void => {
      if (node.kind === ts.SyntaxKind.AnyKeyword) note(node, 'any')
      if (ts.isNonNullExpression(node)) note(node, '!')
      if (ts.isAsExpression(node) && ts.isAsExpression(node.expression)) note(node, 'as … as')
      if (ts.isPropertyAccessExpression(node) && node.expression.getText() === 'console')
        note(node, 'console')
      ts.forEachChild(node, visit)
    }
    visit(file)
    return found
  }

  it('are reported if they contain a shortcut', () => {
    const bad = 'let a: any\na!.b\na as unknown as string\nconsole.log(a)\n'
    expect(shortcuts('bad.ts', bad)).toEqual([
      'any in line 1',
      '! in line 2',
      'as … as in line 3',
      'console in line 4',
    ])
  })

  /** What core/ must be given: the time, chance, and a way to wait. */
  const GIVEN = new Set([
    ...['setTimeout', 'setInterval', 'setImmediate', 'queueMicrotask', 'clearTimeout', 'clearInterval'],
    ...['performance', 'Date', 'console', 'process', 'crypto', 'fetch'],
  ])

  function globalsTaken(path: string, text: string): string[] {
    const file = ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true)
    const found: string[] = []
    const visit = (node: ts.Node): void => {
      const isMember = ts.isPropertyAccessExpression(node.parent) && node.parent.name === node
      if (ts.isIdentifier(node) && !isMember && GIVEN.has(node.text)) found.push(node.text)
      if (ts.isPropertyAccessExpression(node) && node.getText() === 'Math.random') found.push('Math.random')
      ts.forEachChild(node, visit)
    }
    ts.forEachChild(file, visit)
    return found
  }

  it('of core are reported if they use a timer, the clock, random numbers or the console', () => {
    const bad =
      'setTimeout(go)\nDate.now()\nperformance.now()\nMath.random()\nconsole.log(1)\na.setTimeout()\n'
    expect(globalsTaken('bad.ts', bad)).toEqual([
      'setTimeout',
      'Date',
      'performance',
      'Math.random',
      'console',
    ])
  })

  it.each(sources.filter(({ path }) => path.startsWith('src/core/')))(
    '$path takes the time, chance and waiting from nowhere',
    ({ path, text }) => {
      expect(globalsTaken(path, text)).toEqual([])
    },
  )

  it.each(sources)('$path takes no shortcut', ({ path, text }) => {
    expect(shortcuts(path, text)).toEqual([])
  })
})

const program = ts.createProgram([join(ROOT, 'src/index.ts')], tsConfig.options)
const checker = program.getTypeChecker()

function sourceFile(path: string): ts.SourceFile {
  const file = program.getSourceFile(join(ROOT, path))
  if (file === undefined) throw new Error(`${path} is not part of the program`)
  return file
}

/** Doc comments of a declaration. */
const docOf = (node: ts.Node): string => {
  const holder = ts.isVariableDeclaration(node) ? node.parent.parent : node
  return ts
    .getJSDocCommentsAndTags(holder)
    .filter(ts.isJSDoc)
    .map(comment => comment.getText())
    .join('\n')
}

describe('every exported name of the entry point', () => {
  const entry = checker.getSymbolAtLocation(sourceFile('src/index.ts'))
  const names = (entry === undefined ? [] : checker.getExportsOfModule(entry)).map(exported => {
    const target = exported.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(exported) : exported
    const declarations = target.declarations ?? []
    return {
      name: exported.name,
      isOurs: declarations.some(node => node.getSourceFile().fileName.startsWith(join(ROOT, 'src'))),
      doc: declarations.map(docOf).join(''),
    }
  })
  const ours = names.filter(name => name.isOurs)

  it('is checked', () => {
    expect(ours.length).toBeGreaterThanOrEqual(FEWEST_FILES)
    expect(ours.map(({ name }) => name)).toContain('MqttModule')
  })

  it('is defined in this package', () => {
    expect(names.filter(name => !name.isOurs)).toEqual([])
  })

  it.each(ours)('$name has a doc comment', ({ doc }) => {
    expect(doc).toMatch(/[A-Za-z]/)
  })
})

describe('every optional field of the options', () => {
  const fields = sourceFile('src/options/options.ts')
    .statements.filter(ts.isInterfaceDeclaration)
    .filter(declared => declared.name.text.endsWith('Options') && !declared.name.text.startsWith('Resolved'))
    .flatMap(declared =>
      declared.members
        .filter(ts.isPropertySignature)
        .filter(member => member.questionToken !== undefined)
        .map(member => ({ name: `${declared.name.text}.${member.name.getText()}`, doc: docOf(member) })),
    )

  it('is checked', () => {
    expect(fields.length).toBeGreaterThanOrEqual(20)
    expect(fields.map(({ name }) => name)).toContain('MqttModuleOptions.url')
  })

  it.each(fields)('$name states its default, or that it is required or has none', ({ doc }) => {
    expect(doc).toMatch(/@default \S|\brequired\b|\bnone\b/i)
  })
})
