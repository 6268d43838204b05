import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'

const REPOSITORY = fileURLToPath(new URL('../..', import.meta.url))

/** A broker that could not start must leave nothing that keeps the process alive. */
const SCRIPT = `
  import { EmbeddedBroker } from 'nestjs-mqtt/testing'
  const first = await EmbeddedBroker.start()
  const port = Number(new URL(first.url).port)
  await EmbeddedBroker.start({ port }).catch(error => console.log(error.code))
  await first.stop()
`

it('an EmbeddedBroker whose port is in use rejects, and the process can exit', () => {
  const output = execFileSync(process.execPath, ['--input-type=module', '--eval', SCRIPT], {
    cwd: REPOSITORY,
    timeout: 15_000,
  })
  expect(output.toString()).toBe('EADDRINUSE\n')
})
