import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { readLock, runtimePackages } from '../../scripts/runtime-packages.mjs'

/** Licences that allow use in closed products, with a notice at most. */
const PERMISSIVE = [
  'MIT',
  'ISC',
  '0BSD',
  'BSD-2-Clause',
  'BSD-3-Clause',
  'Apache-2.0',
  'BlueOak-1.0.0',
  'MIT-0',
]
const OWN = runtimePackages(readLock())

describe('the packages that an installation brings with it', () => {
  it('are the runtime dependencies and theirs, wherever they are in the lock file', () => {
    const packages = {
      '': { dependencies: { a: '1' } },
      'node_modules/a': { dependencies: { b: '1', c: '1' } },
      'node_modules/a/node_modules/b': { dependencies: { c: '1' } },
      'node_modules/b': {},
      'node_modules/c': {},
      'node_modules/d': {},
    }
    expect(Object.keys(runtimePackages({ packages })).sort()).toEqual([
      'node_modules/a',
      'node_modules/a/node_modules/b',
      'node_modules/c',
    ])
    expect(() => runtimePackages({ packages: { '': { dependencies: { x: '1' } } } })).toThrow('"x"')
  })

  it('have three roots: mqtt, mqtt-packet and valibot', () => {
    expect(Object.keys(readLock().packages['']?.dependencies ?? {})).toEqual([
      'mqtt',
      'mqtt-packet',
      'valibot',
    ])
    expect(Object.keys(OWN).length).toBeGreaterThan(3)
  })

  it('run no script when they are installed', () => {
    expect(Object.entries(OWN).filter(([, { hasInstallScript }]) => hasInstallScript === true)).toEqual([])
  })

  it('all have a permissive licence', () => {
    const others = Object.entries(OWN).filter(([, { license }]) => !PERMISSIVE.includes(String(license)))
    expect(others).toEqual([])
  })
})

it('`npm run sbom` lists this version and exactly these packages, with their licences', () => {
  const script = fileURLToPath(new URL('../../scripts/sbom.mjs', import.meta.url))
  const text = execFileSync(process.execPath, [script], { encoding: 'utf8' })
  const sbom: {
    bomFormat: string
    metadata: { component: { name: string; version: string } }
    components: { name: string; group?: string; version: string; licenses?: unknown[] }[]
  } = JSON.parse(text)
  const { version } = readLock().packages[''] ?? {}
  expect(sbom.bomFormat).toBe('CycloneDX')
  expect(sbom.metadata.component).toMatchObject({ name: 'nestjs-mqtt', version })
  const expected = Object.entries(OWN).map(
    ([path, entry]) => `${path.split('node_modules/').at(-1)}@${entry.version}`,
  )
  const listed = sbom.components.map(part => `${part.name}@${part.version}`)
  expect(listed.sort()).toEqual([...new Set(expected)].sort())
  expect(sbom.components.filter(({ licenses = [] }) => licenses.length === 0)).toEqual([])
})
