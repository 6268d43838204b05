import { describe, expect, it } from 'vitest'
import { resolveOptions } from '../../../src/options/option-checks.js'
import type { MqttModuleOptions } from '../../../src/options/options.js'

const PRESENCE = { topic: 'devices/7/status', online: 'online', offline: 'offline' }

function resolved(options: Partial<MqttModuleOptions>) {
  return resolveOptions({ url: 'mqtt://localhost', ...options })
}

describe('the option presence', () => {
  it('sets a retained will of QoS 1 with the payload of the codec', () => {
    const { presence, secrets } = resolved({ presence: { ...PRESENCE, offline: { online: false } } })
    expect(presence).toEqual({
      topic: 'devices/7/status',
      online: Buffer.from('"online"'),
      offline: Buffer.from('{"online":false}'),
    })
    const { will, properties } = secrets.reveal().passThrough
    expect(will).toEqual({
      topic: 'devices/7/status',
      payload: Buffer.from('{"online":false}'),
      qos: 1,
      retain: true,
    })
    expect(properties).toBeUndefined()
  })

  it('is encoded by the codec of the connection, and bytes are sent unchanged', () => {
    const { presence } = resolved({ codec: 'text', presence: { ...PRESENCE, offline: Buffer.from([0]) } })
    expect(presence).toMatchObject({ online: Buffer.from('online'), offline: Buffer.from([0]) })
  })

  it('may name variables and the Client Identifier in its topic', () => {
    // biome-ignore lint/suspicious/noTemplateCurlyInString: the names are replaced by the package
    const topic = '${site}/${clientId}/status'
    const { presence } = resolved({
      clientId: 'gate-7',
      variables: { site: 'lyon' },
      presence: { ...PRESENCE, topic },
    })
    expect(presence?.topic).toBe('lyon/gate-7/status')
  })

  it('delays the will, and keeps the session for as long', () => {
    const { secrets } = resolved({ presence: { ...PRESENCE, delaySeconds: 30 } })
    expect(secrets.reveal().passThrough).toMatchObject({
      will: { properties: { willDelayInterval: 30 } },
      properties: { sessionExpiryInterval: 30 },
    })
  })

  it('leaves a longer session as it is', () => {
    const presence = { ...PRESENCE, delaySeconds: 30 }
    const { secrets } = resolved({ presence, clean: false, clientId: 'a' })
    expect(secrets.reveal().passThrough.properties).toEqual({ sessionExpiryInterval: 0xffff_ffff })
  })

  it.each<[string, Partial<MqttModuleOptions>]>([
    [
      '"will" and "presence" are both set; remove "will", because presence sets the will',
      { presence: PRESENCE, will: { topic: 'a', payload: Buffer.from('x') } },
    ],
    ['"presence.topic": "a/+" is not a valid Topic Name', { presence: { ...PRESENCE, topic: 'a/+' } }],
    [
      // biome-ignore lint/suspicious/noTemplateCurlyInString: the error quotes it
      '"presence.topic": "${site}/a" is not a valid pattern: ${site} has no value',
      // biome-ignore lint/suspicious/noTemplateCurlyInString: the name has no value
      { presence: { ...PRESENCE, topic: '${site}/a' } },
    ],
    [
      '"presence.offline" is empty; an empty retained message removes the message from the broker',
      { codec: 'text', presence: { ...PRESENCE, offline: '' } },
    ],
    [
      '"presence.offline" has 65536 bytes; at most 65535 are allowed',
      { presence: { ...PRESENCE, offline: Buffer.alloc(65_536) } },
    ],
    ['"presence.online": the payload for', { presence: { ...PRESENCE, online: 1n } }],
    [
      '"properties.sessionExpiryInterval" is 10, but must be at least "presence.delaySeconds", 30',
      { presence: { ...PRESENCE, delaySeconds: 30 }, properties: { sessionExpiryInterval: 10 } },
    ],
    [
      '"presence.delaySeconds" must be an integer from 0 to 4294967294',
      { presence: { ...PRESENCE, delaySeconds: -1 } },
    ],
  ])('is refused: %s', (text, options) => {
    expect(() => resolved(options)).toThrow(expect.objectContaining({ code: 'INVALID_OPTION' }))
    expect(() => resolved(options)).toThrow(text)
  })

  it('is refused without a payload for one of the two states', () => {
    const presence = Object.fromEntries(Object.entries(PRESENCE).filter(([name]) => name !== 'offline'))
    expect(() => Reflect.apply(resolved, undefined, [{ presence }])).toThrow('"presence.offline"')
  })
})
