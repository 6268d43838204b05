// npm run bench -- store: messages that are durable per second, one at a time and in bursts, beside mqtt with mqtt-level-store.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const CHILD = fileURLToPath(new URL('./store/child.mjs', import.meta.url))
/** Engines that this Node does not have print why. */
const SUBJECTS = ['write and fdatasync alone', 'node:sqlite', 'libsql', 'mqtt-level-store']

console.log('messages of 100 B; "stored" means that add() has resolved\n')
console.log(
  '| store | one at a time, per s | bursts of 1,000, per s | p99 of one, ms | event loop delay p99, ms |',
)
console.log('|---|---|---|---|---|')
for (const subject of SUBJECTS) {
  const folder = mkdtempSync(join(tmpdir(), 'nestjs-mqtt-bench-'))
  try {
    const output = execFileSync(process.execPath, [CHILD, subject, folder], {
      encoding: 'utf8',
      timeout: 60_000,
    })
    const { missing, single, burst, p99, delay } = JSON.parse(output.trim().split('\n').at(-1))
    if (missing !== undefined) console.log(`| ${subject} | ${missing} | | | |`)
    else console.log(`| ${subject} | ${single} | ${burst} | ${p99} | ${delay} |`)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
