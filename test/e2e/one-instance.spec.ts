import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))

/** Runs a module in a process of its own, in which `nestjs-mqtt` is the built package. */
function run(code: string): unknown {
  const output = execFileSync(process.execPath, ['--input-type=module', '--eval', code], {
    cwd: ROOT,
    encoding: 'utf8',
  })
  return JSON.parse(output)
}

const MANIFEST: { exports: Record<string, unknown> } = JSON.parse(
  readFileSync(`${ROOT}/package.json`, 'utf8'),
)

const NAMES = Object.keys(MANIFEST.exports)
  .filter(name => !name.endsWith('.json'))
  .map(name => name.replace('.', 'nestjs-mqtt'))

describe('the built package', () => {
  it.each(NAMES)('provides the same values of %s to import and to require', name => {
    const same = run(`
      import { createRequire } from 'node:module'
      const imported = await import('${name}')
      const required = createRequire('${ROOT}')('${name}')
      const names = new Set([...Object.keys(imported), ...Object.keys(required)])
      console.log(JSON.stringify([...names].every(name => imported[name] === required[name]) && names.size > 0))`)
    expect(same).toBe(true)
  })

  it('can be imported several times at once, next to Nest', () => {
    const imports = ['@nestjs/core', ...NAMES, '@nestjs/microservices', ...NAMES, '@nestjs/common']
    const same = run(`
      const modules = await Promise.all(${JSON.stringify(imports)}.map(name => import(name)))
      console.log(JSON.stringify(modules[1].MqttModule === modules[${NAMES.length + 2}].MqttModule))`)
    expect(same).toBe(true)
  })

  it('is CommonJS without a dynamic import, which Jest does not support', () => {
    const files = readdirSync(`${ROOT}/dist`, { recursive: true, encoding: 'utf8' })
    const dynamic = files.filter(file => {
      if (!file.endsWith('.js') || file.startsWith('esm')) return false
      return /\bimport\(/.test(
        readFileSync(`${ROOT}/dist/${file}`, 'utf8').replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, ''),
      )
    })
    expect(dynamic).toEqual([])
  })
})
