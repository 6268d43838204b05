// Builds what has changed, then starts the sample in this process. With Node and npm alone, on every system.
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, statSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const SAMPLE = dirname(fileURLToPath(import.meta.url))
const LIBRARY = join(SAMPLE, '..')
const nestBuild = () => [createRequire(import.meta.url).resolve('@nestjs/cli/bin/nest.js'), 'build']

// MQTT 5 on mosquitto, and two instances of the service, each of which handles a part of the alarms.
if (process.argv[2] === '--mosquitto') {
  process.argv.splice(2, 1)
  Object.assign(process.env, { MOSQUITTO: 'true', INSTANCES: '2', SHARED_GROUP: 'operations' })
}
process.chdir(SAMPLE)
build('the library', LIBRARY, 'dist/index.js', () => ['scripts/build.mjs'])
build('the sample', SAMPLE, 'dist/main.js', nestBuild)
await import('./dist/main.js')

function build(name, folder, result, argsOf) {
  if (isUpToDate(join(folder, result), [join(folder, 'src'), join(folder, 'tsconfig.json')])) return
  const startedMs = Date.now()
  console.log(`Building ${name}. This happens once, and again when its source changes …`)
  const { status } = spawnSync(process.execPath, argsOf(), { cwd: folder, stdio: 'inherit' })
  if (status !== 0) process.exit(status ?? 130)
  console.log(`Built ${name} in ${((Date.now() - startedMs) / 1_000).toFixed(1)} s.`)
}

function isUpToDate(result, sources) {
  if (!existsSync(result)) return false
  const { mtimeMs } = statSync(result)
  return sources.every(source => newest(source) <= mtimeMs)
}

function newest(path) {
  const stats = statSync(path)
  if (!stats.isDirectory()) return stats.mtimeMs
  return Math.max(stats.mtimeMs, ...readdirSync(path).map(name => newest(join(path, name))))
}
