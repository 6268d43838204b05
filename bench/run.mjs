// npm run bench -- <name>: one file for each question. Every number is a ratio within one run.
import { readdirSync } from 'node:fs'

const [name = ''] = process.argv.slice(2)
const names = readdirSync(new URL('.', import.meta.url))
  .filter(file => file.endsWith('.bench.mjs'))
  .map(file => file.replace('.bench.mjs', ''))
if (!names.includes(name)) {
  console.error(`usage: npm run bench -- <name>, with one of: ${names.join(', ')}`)
  process.exit(2)
}
await import(`./${name}.bench.mjs`)
