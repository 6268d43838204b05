// Counts the lines of the same application on three transports: without imports, blank lines and comments.
//   npm run lines
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const FOLDER = new URL('../test/first-day/', import.meta.url)
const APPS = {
  'nestjs-mqtt': ['contracts.ts', 'with-nestjs-mqtt.ts'],
  "Nest's built-in transport": ['with-built-in-transport.ts'],
  'nest-mqtt': ['with-nest-mqtt.ts'],
}

function ownLines(file) {
  const code = readFileSync(fileURLToPath(new URL(file, FOLDER)), 'utf8')
    .replaceAll(/^import [^']*'[^']+'$/gm, '')
    .replaceAll(/\/\*[\s\S]*?\*\//g, '')
  return code.split('\n').filter(line => line.trim() !== '' && !line.trim().startsWith('//')).length
}

console.log('| application on | own lines | of which contracts |\n|---|---|---|')
for (const [name, files] of Object.entries(APPS)) {
  const counts = files.map(ownLines)
  const contracts = files.length > 1 ? counts[0] : 0
  console.log(`| ${name} | ${counts.reduce((sum, count) => sum + count)} | ${contracts} |`)
}
