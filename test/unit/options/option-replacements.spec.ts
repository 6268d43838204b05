import { describe, expect, it } from 'vitest'
import { REPLACEMENTS, resolveOptions } from '../../../src/options/option-checks.js'
import { errorOf } from '../errors-of.js'

describe('an option of another MQTT package', () => {
  it.each([
    ['host', 'localhost', '"url"'],
    ['port', 1883, '"url"'],
    ['reconnectPeriod', 1000, '"reconnect.delayMs"'],
    ['connectTimeout', 1000, '"connectTimeoutMs"'],
    ['queueQoSZero', false, '"outbound.whenBlocked"'],
    ['subscribeOptions', { qos: 1 }, 'handle({ qos, noLocal, retainHandling })'],
    ['maxConnectionAttempts', 3, '"fail-fast"'],
    ['serializer', {}, '"codec"'],
    ['share', 'group', '"sharedGroup"'],
    ['qos', 1, 'handle({ qos })'],
  ])('%s is refused, and the error names its replacement', (name, value, replacement) => {
    const options = { url: 'mqtt://localhost:1883', [name]: value }
    const { code, message } = errorOf(() => resolveOptions(options))
    expect(code).toBe('INVALID_OPTION')
    expect(message).toContain(`unknown option "${name}"; `)
    expect(message).toContain(replacement)
  })

  it('has a replacement only if this package does not accept the option itself', () => {
    for (const name of Object.keys(REPLACEMENTS)) {
      const { message } = errorOf(() => resolveOptions({ url: 'mqtt://localhost:1883', [name]: 1 }))
      expect(message).toContain(`unknown option "${name}"`)
    }
  })
})
