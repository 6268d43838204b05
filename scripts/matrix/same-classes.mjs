// import and require of the entry points give the same classes and functions.
import { createRequire } from 'node:module'

const require = createRequire(import.meta.url)
for (const name of ['nestjs-mqtt/asyncapi', 'nestjs-mqtt/opentelemetry']) {
  const imported = await import(name)
  const required = require(name)
  const names = Object.keys(required)
  if (names.length === 0) throw new Error(`${name} has no names`)
  for (const key of names) if (imported[key] !== required[key]) throw new Error(`${name} has two of ${key}`)
}
