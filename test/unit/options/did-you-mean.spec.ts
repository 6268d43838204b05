import { describe, expect, it } from 'vitest'
import { MqttClient } from '../../../src/client/mqtt-client.js'
import { handle } from '../../../src/options/handler-options.js'
import { REPLACEMENTS, resolveOptions } from '../../../src/options/option-checks.js'
import { PASS_THROUGH } from '../../../src/options/pass-through.js'
import { errorOf } from '../errors-of.js'

const url = 'mqtt://localhost:1883'

/** As a caller without types gives them. */
const messageOf = (options: object): string =>
  errorOf(() => Reflect.apply(resolveOptions, undefined, [{ url, ...options }])).message

describe('the error for an unknown option', () => {
  it.each([
    [{ keepAlive: 30 }, '"keepAlive"; did you mean "keepalive"?'],
    [{ clientID: 'a' }, '"clientID"; did you mean "clientId"?'],
    [{ client_id: 'a' }, '"client_id"; did you mean "clientId"?'],
    [{ userName: 'a' }, '"userName"; did you mean "username"?'],
    [{ uri: url }, '"uri"; did you mean "url"?'],
    [{ protocolVerison: 5 }, '"protocolVerison"; did you mean "protocolVersion"?'],
    [{ drainTimeout: 5 }, '"drainTimeout"; did you mean "drainTimeoutMs"?'],
    [{ outbound: { maxInflight: 5 } }, '"outbound.maxInflight"; did you mean "outbound.maxInFlight"?'],
    [{ inbound: { concurency: 5 } }, '"inbound.concurency"; did you mean "inbound.concurrency"?'],
    [{ reconnect: { delayMS: [1] } }, '"reconnect.delayMS"; did you mean "reconnect.delayMs"?'],
    [{ whenBlocked: 'queue' }, '"whenBlocked"; did you mean "outbound.whenBlocked"?'],
    [{ will: { topic: 'a', payload: '', QoS: 1 } }, '"will.QoS"; did you mean "will.qos"?'],
  ])('suggests the option that differs in a few letters: %j', (options, expected) => {
    expect(messageOf(options)).toContain(`unknown option ${expected}`)
  })

  it.each(['colour', 'retain', 'topic'])('suggests nothing for "%s", which is similar to no option', name => {
    expect(messageOf({ [name]: 1 })).toMatch(new RegExp(`unknown option "${name}"$`))
  })

  it.each(Object.keys(PASS_THROUGH))('suggests %s if its case is wrong or a letter is missing', name => {
    const upper = name.toUpperCase()
    const shorter = name.slice(0, -1)
    expect(messageOf({ [upper]: 1 })).toContain(`did you mean "${name}"?`)
    if (name.length > 3 && !(shorter in PASS_THROUGH) && !(shorter in REPLACEMENTS))
      expect(messageOf({ [shorter]: 1 })).toContain(`did you mean "${name}"?`)
  })

  it('suggests the options of a handler', () => {
    const options = { Retries: { attempts: 1 }, onFail: 'ack' }
    expect(errorOf(() => Reflect.apply(handle, undefined, [options])).message).toContain(
      '"Retries"; did you mean "retries"?',
    )
  })

  it('suggests the options of a publish', async () => {
    const client = new MqttClient({ url })
    const publishing = Reflect.apply(client.publish, client, ['a', 1, { timeout: 5 }])
    await expect(publishing).rejects.toThrow('unknown option "timeout"; did you mean "timeoutMs"?')
    await client.close()
  })
})
