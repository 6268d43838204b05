import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'

interface LockedPackage {
  readonly optionalDependencies?: Readonly<Record<string, string>>
}

const { packages }: { packages: Record<string, LockedPackage> } = JSON.parse(
  readFileSync(new URL('../../package-lock.json', import.meta.url), 'utf8'),
)

/** `npm ci` refuses a lock file that lacks an optional package, also one of another platform. */
it('the lock file has an entry for every optional dependency', () => {
  const wanted = Object.entries(packages).flatMap(([owner, { optionalDependencies = {} }]) =>
    Object.keys(optionalDependencies).map(name => [`${owner}/node_modules/${name}`, `node_modules/${name}`]),
  )
  expect(wanted.length).toBeGreaterThan(10)
  const missing = wanted.filter(places => !places.some(place => place in packages))
  expect(missing).toEqual([])
})

it('the lock file names no host', () => {
  expect(JSON.stringify(packages)).not.toMatch(/"resolved":"https?:/)
})
