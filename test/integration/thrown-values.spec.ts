import { describe, expect, it } from 'vitest'
import { deadLetter } from '../../src/options/handler-options.js'
import { holdClock } from '../support/held-clock.js'
import { finish } from '../support/publisher-on-peer.js'
import { json, settle, subscriberOnPeer } from '../support/subscriber-on-peer.js'

holdClock()

const refuse = () => {
  throw new Error('not readable')
}
const revoked = (): unknown => {
  const { proxy, revoke } = Proxy.revocable({}, {})
  revoke()
  return proxy
}
const withGetter = (name: string) => Object.defineProperty(new Error('hidden'), name, { get: refuse })

const THROWN: readonly (readonly [string, () => unknown])[] = [
  ['an object as message', () => Object.assign(new Error(), { message: { a: 1 } })],
  ['a number as message', () => Object.assign(new Error(), { message: 7 })],
  ['a symbol as message', () => Object.assign(new Error(), { message: Symbol('s') })],
  ['a message that throws', () => withGetter('message')],
  ['issues that throw', () => withGetter('issues')],
  ['a response that throws', () => Object.assign(new Error('x'), { getStatus: refuse, getResponse: refuse })],
  [
    'a cause with an array as message',
    () => new Error('', { cause: Object.assign(new Error(), { message: [1] }) }),
  ],
  ['no name and no message', () => Object.assign(new Error(''), { name: undefined })],
  [
    'a plain object with a message that throws',
    () => ({
      get message() {
        return refuse()
      },
    }),
  ],
  [
    'a proxy that refuses everything',
    () => new Proxy({}, { get: refuse, has: refuse, getPrototypeOf: refuse }),
  ],
  ['a revoked proxy', revoked],
  ['undefined', () => undefined],
  ['a symbol', () => Symbol('s')],
]

describe.each(THROWN)('a handler that throws %s', (_name, thrown) => {
  it('counts as failed and is logged, and its message is acknowledged', async () => {
    const parts = await subscriberOnPeer()
    const { mqtt, connection, log } = parts
    mqtt.subscribe('a', () => {
      throw thrown()
    })
    await connection.grant()
    connection.send(json('a', 1, { qos: 1, messageId: 1 }))
    expect((await connection.find('puback')).messageId).toBe(1)
    await settle(mqtt)
    expect(mqtt.stats().inbound).toMatchObject({ running: 0, waiting: 0, failed: 1 })
    expect(log.lines.filter(({ level }) => level === 'error')).toHaveLength(1)
    await finish(parts)
  })

  it('has a dead letter with a reason', async () => {
    const parts = await subscriberOnPeer()
    const { mqtt, connection } = parts
    mqtt.subscribe(
      'a',
      () => {
        throw thrown()
      },
      { onFailure: deadLetter('dead') },
    )
    await connection.grant()
    connection.send(json('a', 1, { qos: 1, messageId: 1 }))
    const letter = await connection.find('publish')
    expect(letter.properties?.userProperties).toMatchObject({ 'dead-letter-reason': expect.any(String) })
    connection.send({ cmd: 'puback', messageId: letter.messageId ?? 0, reasonCode: 0 })
    await connection.find('puback')
    await finish(parts)
  })
})
