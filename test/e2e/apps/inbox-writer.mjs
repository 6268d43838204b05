// Adds keys to an inbox until it is killed, and says on its standard output which have been added.
//   node inbox-writer.mjs <file> <first number>
import { sqliteInbox } from 'nestjs-mqtt/store'

const [file, first] = process.argv.slice(2)
const inbox = sqliteInbox(file)
await inbox.open()
process.stdout.write('open\n')

const scope = { name: 'alarms', maxAgeMs: 86_400_000, maxEntries: 1_000_000 }
let next = Number(first)
for (;;) {
  const burst = Array.from({ length: 1 + (next % 7) }, () => {
    next += 1
    const id = String(next)
    return inbox.add(id, scope).then(() => process.stdout.write(`added ${id}\n`))
  })
  await Promise.all(burst)
}
