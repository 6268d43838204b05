// Builds the site into dist/: the pages of docs/, and the API reference from the doc comments.
//   node build.mjs         builds; fails on a dead link
//   node build.mjs --dev   serves the pages on localhost, and updates them when a file in docs/ changes
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, watch, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Application } from 'typedoc'
import { build, createServer } from 'vitepress'
import { ENTRY_POINTS } from '../scripts/entry-points.mjs'
import { deadAnchors } from './dead-anchors.mjs'

const SITE = fileURLToPath(new URL('.', import.meta.url))
const ROOT = fileURLToPath(new URL('..', import.meta.url))
const DOCS = join(ROOT, 'docs')
/** Copies; never edited and never committed. */
const PAGES = join(SITE, '.pages')
const API = join(PAGES, 'api')

/** Files outside docs/ that are pages too. */
const OTHERS = { 'CHANGELOG.md': 'changelog.md', 'SECURITY.md': 'security-policy.md' }

/** Settings of pages. They are not in the files themselves, which are also read on npm and in the repository. */
const FRONTMATTER = {
  'comparison.md': 'aside: false',
  'delivery.md': 'aside: false',
  'options.md': 'aside: false',
  'benchmarks.md': 'aside: false',
  'troubleshooting.md': 'outline: 2',
}

function copyPages() {
  for (const name of readdirSync(DOCS)) if (name.endsWith('.md')) copyPage(join(DOCS, name), name)
  for (const [name, target] of Object.entries(OTHERS)) copyPage(join(ROOT, name), target)
  cpSync(join(SITE, 'index.md'), join(PAGES, 'index.md'))
}

function copyPage(from, name) {
  let text = readFileSync(from, 'utf8')
  for (const [other, target] of Object.entries(OTHERS)) text = text.replaceAll(`](../${other}`, `](${target}`)
  if (name in FRONTMATTER) text = `---\n${FRONTMATTER[name]}\n---\n\n${text}`
  writeFileSync(join(PAGES, name), text)
}

async function writeApi() {
  const app = await Application.bootstrapWithPlugins({
    plugin: ['typedoc-plugin-markdown'],
    entryPoints: Object.values(ENTRY_POINTS).map(module => join(ROOT, `src/${module}.ts`)),
    tsconfig: join(ROOT, 'tsconfig.build.json'),
    skipErrorChecking: true,
    name: 'API reference',
    readme: 'none',
    excludeInternal: true,
    excludePrivate: true,
    excludeExternals: true,
    disableSources: true,
    hidePageHeader: true,
    hideBreadcrumbs: true,
    useHTMLEncodedBrackets: true,
    sanitizeComments: true,
    parametersFormat: 'table',
    interfacePropertiesFormat: 'list',
    entryFileName: 'index.md',
    validation: { notExported: false, invalidLink: true },
    logLevel: 'Warn',
  })
  const project = await app.convert()
  if (project === undefined) throw new Error('the API reference cannot be made: src does not compile')
  await app.outputs.writeOutput({ name: 'markdown', path: API }, project)
  app.validate(project)
  nameEntryPoints()
}

/** TypeDoc names the entry points after their files in src. */
function nameEntryPoints() {
  const list = join(API, 'index.md')
  let text = readFileSync(list, 'utf8')
  for (const [name, module] of Object.entries(ENTRY_POINTS)) {
    const folder = module.replace(/\/index$/, '')
    const entryPoint = `nestjs-mqtt${name.slice(1)}`
    const page = join(API, folder, 'index.md')
    writeFileSync(page, readFileSync(page, 'utf8').replace(/^# .*/m, `# ${entryPoint}`))
    text = text.replace(`[${folder}](`, `[${entryPoint}](`)
  }
  writeFileSync(list, text.replace('## Modules', '## Entry points'))
}

rmSync(PAGES, { recursive: true, force: true })
mkdirSync(PAGES, { recursive: true })
copyPages()
await writeApi()

if (process.argv.includes('--dev')) {
  watch(DOCS, () => copyPages())
  const server = await createServer(SITE)
  await server.listen()
  server.printUrls()
} else {
  await build(SITE)
  const dist = join(SITE, 'dist')
  const dead = deadAnchors(dist)
  for (const link of dead) console.error(`dead link: ${link}`)
  if (dead.length > 0) process.exit(1)
  const pages = readdirSync(dist, { recursive: true }).filter(file => file.endsWith('.html'))
  const bytes = pages.reduce((sum, file) => sum + statSync(join(dist, file)).size, 0)
  console.log(`${pages.length} pages, ${bytes} bytes of HTML, in site/dist`)
}
