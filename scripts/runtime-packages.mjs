// The packages that `npm install nestjs-mqtt` brings with it, from package-lock.json.
import { readFileSync } from 'node:fs'

const FILE = new URL('../package-lock.json', import.meta.url)

export function readLock(file = FILE) {
  return JSON.parse(readFileSync(file, 'utf8'))
}

/**
 * The runtime dependencies of the root package and theirs, without peer and development dependencies.
 * @returns entries of the lock file by their path
 */
export function runtimePackages({ packages }) {
  const found = {}
  const open = Object.keys(packages['']?.dependencies ?? {}).map(name => ['', name])
  for (const [owner, name] of open) {
    const path = locate(packages, owner, name)
    if (path === undefined) throw new Error(`the lock file has no package "${name}" for "${owner}"`)
    if (path in found) continue
    found[path] = packages[path]
    open.push(...Object.keys(packages[path].dependencies ?? {}).map(inner => [path, inner]))
  }
  return found
}

/** Where Node finds a package: in the `node_modules` of its owner, or of a folder above. */
function locate(packages, owner, name) {
  for (let folder = owner; ; folder = folder.slice(0, Math.max(0, folder.lastIndexOf('/node_modules/')))) {
    const path = `${folder === '' ? '' : `${folder}/`}node_modules/${name}`
    if (path in packages) return path
    if (folder === '') return undefined
  }
}
