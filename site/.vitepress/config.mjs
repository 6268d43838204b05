import { readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitepress'
import { ENTRY_POINTS } from '../../scripts/entry-points.mjs'

const API = fileURLToPath(new URL('../.pages/api', import.meta.url))
const page = (text, name) => ({ text, link: `/${name}` })

const GUIDE = [
  {
    text: 'Start',
    items: [
      page('Getting started', 'getting-started'),
      page('Tutorial', 'tutorial'),
      page('Comparison', 'comparison'),
      page('Migration', 'migration'),
    ],
  },
  {
    text: 'Messages',
    items: [
      page('Freshness', 'freshness'),
      page('Delivery guarantees', 'delivery'),
      page('Publishing', 'publishing'),
      page('Storing', 'storing'),
      page('Outbox and inbox', 'outbox'),
      page('Handlers', 'handlers'),
      page('Receiving', 'receiving'),
      page('Contracts', 'contracts'),
      page('Codecs', 'codecs'),
      page('Requests', 'requests'),
      page('State', 'state'),
      page('Without Nest', 'client'),
      page('Testing', 'testing'),
    ],
  },
  {
    text: 'Operation',
    items: [
      page('Ways to connect', 'connections'),
      page('Reconnecting', 'reconnect'),
      page('Authentication', 'authentication'),
      page('Deployment', 'deployment'),
      page('Scaling', 'scaling'),
      page('Doctor', 'doctor'),
      page('Brokers', 'brokers'),
      page('Interoperability', 'interoperability'),
      page('Security', 'security'),
      page('Health', 'health'),
      page('Traces and metrics', 'opentelemetry'),
      page('AsyncAPI', 'asyncapi'),
      page('Troubleshooting', 'troubleshooting'),
    ],
  },
  {
    text: 'Reference',
    items: [
      page('Options', 'options'),
      page('API', 'api/'),
      page('Conformance', 'conformance'),
      page('Benchmarks', 'benchmarks'),
      page('Changelog', 'changelog'),
      page('Security policy', 'security-policy'),
    ],
  },
]

const KINDS = ['classes', 'interfaces', 'type-aliases', 'functions', 'variables']

const entryPoints = Object.entries(ENTRY_POINTS).map(([name, module]) => ({
  text: `nestjs-mqtt${name.slice(1)}`,
  folder: module.replace(/\/index$/, ''),
}))

/** On a page of the API reference, the sidebar has the other pages of its entry point. */
function apiSidebars() {
  const sidebarOf = ({ text, folder }) => {
    const items = KINDS.flatMap(kind =>
      filesIn(`${API}/${folder}/${kind}`).map(file => page(file, `api/${folder}/${kind}/${file}`)),
    ).sort((a, b) => a.text.localeCompare(b.text))
    return [
      { text: 'Entry points', items: ENTRIES },
      { text, items },
    ]
  }
  const sidebars = entryPoints.map(entry => [`/api/${entry.folder}/`, sidebarOf(entry)])
  return Object.fromEntries([...sidebars, ['/api/', [{ text: 'Entry points', items: ENTRIES }]]])
}

const ENTRIES = entryPoints.map(({ text, folder }) => page(text, `api/${folder}/`))

function filesIn(folder) {
  try {
    return readdirSync(folder).map(file => file.replace(/\.md$/, ''))
  } catch {
    return []
  }
}

/** The age of data over time: rising, and bounded. */
const ICON = `data:image/svg+xml,${encodeURIComponent(
  '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32" fill="none" stroke-width="4" stroke-linecap="round"><path d="M4 26 28 4" stroke="#a1a1aa"/><path d="M4 26q5-6 10-6h14" stroke="#0d9488"/></svg>',
)}`

/** As on GitHub, so that a link to a heading works in both places. */
function slugify(heading) {
  const words = heading
    .trim()
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
  return encodeURIComponent(words.replaceAll(/\s/g, '-'))
}

export default defineConfig({
  title: 'nestjs-mqtt',
  description: 'The MQTT transport for NestJS that keeps data fresh on bad links',
  lang: 'en',
  srcDir: '.pages',
  outDir: 'dist',
  cacheDir: 'node_modules/.cache/vitepress',
  metaChunk: true,
  vite: { build: { chunkSizeWarningLimit: 4_000 } },
  head: [['link', { rel: 'icon', href: ICON }]],
  markdown: { anchor: { slugify }, theme: { light: 'github-light', dark: 'github-dark' } },
  themeConfig: {
    nav: [page('Guide', 'getting-started'), page('API', 'api/'), page('Troubleshooting', 'troubleshooting')],
    sidebar: { ...apiSidebars(), '/': GUIDE },
    outline: { level: [2, 3] },
    search: { provider: 'local' },
    footer: { message: 'MIT licence' },
  },
})
