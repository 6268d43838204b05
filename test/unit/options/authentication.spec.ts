import { describe, expect, it } from 'vitest'
import { resolveOptions } from '../../../src/options/option-checks.js'
import type { AuthenticationOptions } from '../../../src/options/options.js'
import { errorOf } from '../errors-of.js'

const url = 'mqtt://localhost'
const method = 'SCRAM-SHA-256'

describe('the option "authentication"', () => {
  it('has defaults for its limits', () => {
    expect(resolveOptions({ url, authentication: { method } }).authentication).toMatchObject({
      method,
      timeoutMs: 5_000,
      maxRounds: 10,
    })
    expect(resolveOptions({ url }).authentication).toBeUndefined()
  })

  it('sends the Authentication Data of the credentials if there is no start()', async () => {
    const { authentication } = resolveOptions({ url, authentication: { method } })
    const isReauthentication = false
    expect(
      await authentication?.start({ credentials: { authenticationData: 'token' }, isReauthentication }),
    ).toEqual({
      data: 'token',
    })
    expect(await authentication?.start({ credentials: {}, isReauthentication })).toEqual({})
  })

  it.each(['auto', 5, undefined] as const)(
    'rules out MQTT 3.1.1 with protocolVersion %s',
    protocolVersion => {
      const version = protocolVersion === undefined ? {} : { protocolVersion }
      expect(resolveOptions({ url, authentication: { method }, ...version }).protocolVersion).toBe(5)
    },
  )

  it('is refused at the start with MQTT 3.1.1', () => {
    const { code, message } = errorOf(() =>
      resolveOptions({ url, authentication: { method }, protocolVersion: 4 }),
    )
    expect(code).toBe('INVALID_OPTION')
    expect(message).toBe(
      'MqttModule options: "authentication" needs MQTT 5, but "protocolVersion" is 4 (MQTT 3.1.1 has no AUTH packet); remove one of them',
    )
  })

  it.each([
    [{ method: '' }, '"authentication.method" must be the name of an Authentication Method'],
    [{ method, timeoutMs: 0 }, '"authentication.timeoutMs" must be an integer from 1 to 3600000'],
    [{ method, maxRounds: 1_001 }, '"authentication.maxRounds" must be an integer from 1 to 1000'],
  ] satisfies [AuthenticationOptions, string][])('rejects %j', (authentication, problem) => {
    const { code, message } = errorOf(() => resolveOptions({ url, authentication }))
    expect(code).toBe('INVALID_OPTION')
    expect(message).toContain(problem)
  })

  it.each(['authenticationMethod', 'authenticationData'])('replaces "properties.%s"', name => {
    const { message } = errorOf(() => resolveOptions({ url, properties: { [name]: Buffer.from('x') } }))
    expect(message).toContain(`unknown option "properties.${name}"; use "authentication"`)
  })
})
