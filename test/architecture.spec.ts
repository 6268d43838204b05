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
  it('keep every rule', async () => {
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

const PURE_FILES = [
  'src/topic/topic-filter.ts',
  'src/topic/any-other.ts',
  'src/transport/connection/connection-state.ts',
  'src/transport/connection/reconnect-policy.ts',
  'src/transport/connection/broker-limits.ts',
  'src/transport/connection/packet-ids.ts',
  'src/transport/connection/packet-length.ts',
  'src/transport/connection/subscribe-batches.ts',
  'src/transport/connection/subscription-identifiers.ts',
  'src/transport/connection/subscription-options.ts',
  'src/transport/connection/reason-code-rules.ts',
  'src/transport/connection/connection-log.ts',
  'src/transport/inbound/ack-window.ts',
  'src/transport/inbound/ordered-lanes.ts',
  'src/transport/inbound/run-scheduler.ts',
  'src/transport/inbound/intake.ts',
  'src/transport/inbound/redeliveries.ts',
  'src/transport/inbound/delivery.ts',
  'src/transport/inbound/inbound-count.ts',
  'src/transport/connection/write-holding.ts',
  'src/transport/connection/inbound-size-guard.ts',
  'src/transport/inbound/routes.ts',
  'src/transport/inbound/reply-target.ts',
  'src/transport/outbound/outbound-gate.ts',
  'src/transport/outbound/outbound-buffer.ts',
  'src/transport/outbound/link-window.ts',
  'src/transport/outbound/topic-aliases.ts',
  'src/transport/outbound/outcome-count.ts',
  'src/transport/outbound/drop-episode.ts',
  'src/transport/outbound/waiting.ts',
  'src/transport/connection/publish-encoder.ts',
  'src/transport/connection/write-batch.ts',
]
const GROUND_FILES = [
  'src/errors.ts',
  'src/codec.ts',
  'src/options.ts',
  'src/publish-outcome.ts',
  'src/option-checks.ts',
  'src/log-thinning.ts',
  'src/deadline.ts',
  'src/topic/topic-trie.ts',
]
const typeOnly = (name: string) => `import type * as it from '${name}'\nexport type It = typeof it`
const value = (name: string) => `export * from '${name}'`

const PROBES: readonly Probe[] = [
  {
    rule: 'no-cycles',
    file: 'src/a.ts',
    wrong: value('./a.js'),
    right: value('./b.js'),
    others: ['src/b.ts'],
  },
  {
    rule: 'no-orphans',
    file: 'src/lonely.ts',
    wrong: 'export {}',
    right: value('./b.js'),
    others: ['src/b.ts'],
  },
  {
    rule: 'plain-name-knows-no-nest',
    file: 'src/plain.ts',
    wrong: value('@nestjs/common'),
    right: value('rxjs'),
  },
  { rule: 'plain-name-knows-no-nest', file: 'src/plain.ts', wrong: typeOnly('@nestjs/microservices') },
  {
    rule: 'plain-name-knows-no-nest',
    file: 'src/transport/connection/plain.ts',
    wrong: value('@nestjs/core'),
  },
  {
    rule: 'plain-name-knows-no-nest',
    file: 'src/plain.ts',
    wrong: value('./mqtt.service.js'),
    right: value('./service.js'),
    others: ['src/mqtt.service.ts', 'src/service.ts'],
  },
  {
    rule: 'plain-name-knows-no-nest',
    file: 'src/transport/inbound/plain.ts',
    wrong: value('../mqtt.context.js'),
    others: ['src/transport/mqtt.context.ts'],
  },
  ...PURE_FILES.flatMap((file): Probe[] => [
    { rule: 'pure', file, wrong: value('node:net'), right: typeOnly('node:net') },
    { rule: 'pure', file, wrong: value('mqtt'), right: typeOnly('mqtt') },
    { rule: 'pure', file, wrong: value('rxjs'), right: typeOnly('rxjs') },
  ]),
  ...GROUND_FILES.map((file): Probe => {
    const up = file.startsWith('src/topic/') ? '..' : '.'
    return {
      rule: 'ground-floor',
      file,
      wrong: value(`${up}/transport/upper.js`),
      right: typeOnly(`${up}/transport/upper.js`),
      others: ['src/transport/upper.ts'],
    }
  }),
  ...['inbound', 'outbound'].map(
    (upper): Probe => ({
      rule: 'connection-below-inbound-and-outbound',
      file: 'src/transport/connection/lower.ts',
      wrong: value(`../${upper}/upper.js`),
      right: value('./other.js'),
      others: [`src/transport/${upper}/upper.ts`, 'src/transport/connection/other.ts'],
    }),
  ),
  {
    rule: 'inbound-and-outbound-are-strangers',
    file: 'src/transport/inbound/one.ts',
    wrong: value('../outbound/other.js'),
    right: value('./other.js'),
    others: ['src/transport/outbound/other.ts', 'src/transport/inbound/other.ts'],
  },
  {
    rule: 'inbound-and-outbound-are-strangers',
    file: 'src/transport/outbound/one.ts',
    wrong: value('../inbound/other.js'),
    right: value('./other.js'),
    others: ['src/transport/outbound/other.ts', 'src/transport/inbound/other.ts'],
  },
  {
    rule: 'testing-is-a-leaf',
    file: 'src/transport/user.ts',
    wrong: value('../testing/double.js'),
    others: ['src/testing/double.ts'],
  },
  { rule: 'only-mqtt', file: 'src/transport/other.ts', wrong: value('mqtt'), right: typeOnly('mqtt') },
  {
    rule: 'only-mqtt-packet',
    file: 'src/transport/other.ts',
    wrong: value('mqtt-packet'),
    right: typeOnly('mqtt-packet'),
  },
  { rule: 'only-aedes', file: 'src/testing/other.ts', wrong: value('aedes'), right: typeOnly('aedes') },
  { rule: 'only-valibot', file: 'src/topic/other.ts', wrong: value('valibot'), right: typeOnly('valibot') },
]

describe('the gate bites', () => {
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

  it('in every rule that it has', () => {
    const rules = (gate.ruleSet?.forbidden ?? []).map(rule => rule.name)
    expect(rules.length).toBeGreaterThan(0)
    expect([...new Set(PROBES.map(probe => probe.rule))].toSorted()).toEqual(rules.toSorted())
  })

  it('and every rule is an error, not a warning', () => {
    for (const rule of gate.ruleSet?.forbidden ?? []) expect(rule.severity, rule.name).toBe('error')
  })

  it.each(PROBES)('$rule: $file must not say $wrong', async probe => {
    expect(await brokenRules(probe, probe.wrong)).toContain(probe.rule)
    expect(await brokenRules(probe, probe.right ?? 'export {}')).not.toContain(probe.rule)
  })
})

describe('the source files', () => {
  it('are all looked at', () => {
    expect(sources.length).toBeGreaterThanOrEqual(FEWEST_FILES)
    expect(sources.map(source => source.path)).toContain('src/index.ts')
  })

  it.each(sources)('$path has at most 300 lines', ({ text }) => {
    expect(text.trimEnd().split('\n').length).toBeLessThanOrEqual(300)
  })

  it.each(sources)('$path has no unfinished business', ({ text }) => {
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

  it('would be caught with a shortcut', () => {
    const bad = 'let a: any\na!.b\na as unknown as string\nconsole.log(a)\n'
    expect(shortcuts('bad.ts', bad)).toEqual([
      'any in line 1',
      '! in line 2',
      'as … as in line 3',
      'console in line 4',
    ])
  })

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

  it('is looked at', () => {
    expect(ours.length).toBeGreaterThanOrEqual(FEWEST_FILES)
    expect(ours.map(({ name }) => name)).toContain('MqttModule')
  })

  it('is our own, but for the packet of mqtt-packet', () => {
    expect(names.filter(name => !name.isOurs).map(({ name }) => name)).toEqual(['PublishPacket'])
  })

  it.each(ours)('$name has a doc comment', ({ doc }) => {
    expect(doc).toMatch(/[A-Za-z]/)
  })
})

describe('every optional field of the options', () => {
  const fields = sourceFile('src/options.ts')
    .statements.filter(ts.isInterfaceDeclaration)
    .filter(declared => declared.name.text.endsWith('Options') && !declared.name.text.startsWith('Resolved'))
    .flatMap(declared =>
      declared.members
        .filter(ts.isPropertySignature)
        .filter(member => member.questionToken !== undefined)
        .map(member => ({ name: `${declared.name.text}.${member.name.getText()}`, doc: docOf(member) })),
    )

  it('is looked at', () => {
    expect(fields.length).toBeGreaterThanOrEqual(20)
    expect(fields.map(({ name }) => name)).toContain('MqttModuleOptions.url')
  })

  it.each(fields)('$name states its default, or that it is required or has none', ({ doc }) => {
    expect(doc).toMatch(/@default \S|\brequired\b|\bnone\b/i)
  })
})
