// npm run sbom: writes a software bill of materials in the CycloneDX format, for this version and what it installs.
//   -- --out FILE    writes it to a file
// `npm sbom` itself lists the whole repository with its tools, and fails because the sample depends on the package.
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { readLock, runtimePackages } from './runtime-packages.mjs'

const { values: options } = parseArgs({ options: { out: { type: 'string' } } })
const lock = readLock()
const { name, version, license, dependencies } = lock.packages['']
const root = { name, version, license, dependencies }

const place = mkdtempSync(join(tmpdir(), 'nestjs-mqtt-sbom-'))
// `npm` names the component after its folder.
const folder = join(place, name)
mkdirSync(folder)
try {
  const packages = { '': root, ...runtimePackages(lock) }
  const { lockfileVersion } = lock
  write('package.json', root)
  write('package-lock.json', { name, version, lockfileVersion, requires: true, packages })
  const text = execFileSync(
    'npm',
    ['sbom', '--package-lock-only', '--sbom-format', 'cyclonedx', '--sbom-type', 'library'],
    { cwd: folder, encoding: 'utf8' },
  )
  if (options.out === undefined) process.stdout.write(text)
  else writeFileSync(options.out, text)
} finally {
  rmSync(place, { recursive: true, force: true })
}

function write(file, content) {
  writeFileSync(join(folder, file), JSON.stringify(content))
}
