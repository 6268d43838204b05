import * as v from 'valibot'
import { describe, expect, it } from 'vitest'
import { defineTopic } from '../../src/client/index.js'
import { holdClock } from '../support/held-clock.js'
import { finish, pass, publisherOnPeer } from '../support/publisher-on-peer.js'
import { message } from '../support/session-on-peer.js'
import { json, settle, subscriberOnPeer } from '../support/subscriber-on-peer.js'

holdClock()

const WINDOW_MS = 10_000

const said = (lines: readonly { readonly level: string; readonly text: string }[]): string[] =>
  lines.filter(({ level }) => level === 'error').map(({ text }) => text)

const fail = (text: string) => () => {
  throw new Error(text)
}

describe('the log of failures', () => {
  it('counts 1,500 messages that could not be decoded', async () => {
    const parts = await subscriberOnPeer({ inbound: { maxQueued: 2_000 } })
    const { mqtt, connection, log } = parts
    mqtt.subscribe('devices/+', () => {})
    await connection.grant()
    for (let device = 0; device < 1_500; device += 1)
      connection.send(message(`devices/${device}`, { payload: 'no JSON' }))
    await settle(mqtt)
    await pass(WINDOW_MS)
    expect(said(log.lines)).toEqual([
      'the handler of "devices/+" failed: the payload on "devices/0" could not be decoded (7 bytes: SyntaxError)',
      expect.stringMatching(
        /^the handler of "devices\/\+" failed: the payload could not be decoded: 1499 more within 10\.\d s$/,
      ),
    ])
    await finish(parts)
  })

  it('names the topic of an invalid payload once, and that of another payload beside it', async () => {
    const parts = await subscriberOnPeer()
    const { mqtt, connection, log } = parts
    const schema = v.object({ celsius: v.number() })
    mqtt.subscribe('in/+', () => {}, { schema })
    const out = defineTopic('out', { schema })
    mqtt.subscribe('relay', () => mqtt.publish(out.at(), Object({ celsius: 'x' })))
    for (let filter = 0; filter < 2; filter += 1) await connection.grant()
    connection.send(json('in/1', {}))
    connection.send(json('relay', 1))
    await settle(mqtt)
    expect(said(log.lines)).toEqual([
      expect.stringMatching(
        /^the handler of "in\/\+" failed: the payload on "in\/1" is not valid: celsius: /,
      ),
      expect.stringMatching(
        /^the handler of "relay" failed for a message on "relay": the payload for "out" is not valid: celsius: /,
      ),
    ])
    await finish(parts)
  })

  it('contains another cause, and another handler, at once', async () => {
    const parts = await subscriberOnPeer()
    const { mqtt, connection, log } = parts
    const causes = ['disk full', 'disk full', 'no route', 'disk full']
    mqtt.subscribe('a', () => fail(causes.shift() ?? '')())
    mqtt.subscribe('b', fail('disk full'))
    for (let filter = 0; filter < 2; filter += 1) await connection.grant()
    for (const topic of ['a', 'a', 'a', 'b', 'a']) connection.send(json(topic, 1))
    await settle(mqtt)
    expect(said(log.lines).toSorted()).toEqual([
      'the handler of "a" failed for a message on "a": disk full',
      'the handler of "a" failed for a message on "a": no route',
      'the handler of "b" failed for a message on "b": disk full',
    ])
    await finish(parts)
    expect(said(log.lines).slice(3)).toEqual([
      expect.stringMatching(/^the handler of "a" failed: disk full: 2 more within 0\.\d s$/),
    ])
  })

  it('contains the number of repeats every 10 s while they continue, and starts again after a window without any', async () => {
    const parts = await subscriberOnPeer()
    const { mqtt, connection, log } = parts
    mqtt.subscribe('a', fail('disk full'))
    await connection.grant()
    for (let second = 0; second < 20; second += 1) {
      connection.send(json('a', 1))
      await pass(1_000)
    }
    await pass(1_500)
    expect(said(log.lines)).toHaveLength(3)
    await pass(2 * WINDOW_MS, WINDOW_MS)
    connection.send(json('a', 1))
    await settle(mqtt)
    const first = 'the handler of "a" failed for a message on "a": disk full'
    const more = expect.stringMatching(/^the handler of "a" failed: disk full: (9|10) more within 10\.\d s$/)
    expect(said(log.lines)).toEqual([first, more, more, first])
    await finish(parts)
  })

  it('contains a failure in one line, whatever its text', async () => {
    const parts = await subscriberOnPeer()
    const { mqtt, connection, log } = parts
    mqtt.subscribe('a', fail(`first\nsecond ${'x'.repeat(10_000)}`))
    await connection.grant()
    connection.send(json('a', 1))
    await settle(mqtt)
    expect(said(log.lines)[0]).toMatch(/: first second x+…$/)
    expect(said(log.lines)[0]?.length).toBeLessThan(700)
    await finish(parts)
  })
})

describe('a publish that the broker refuses', () => {
  it('is logged with its Reason Code and the number of repeats', async () => {
    const parts = await publisherOnPeer()
    const { mqtt, connection, log } = parts
    for (let count = 0; count < 3; count += 1) {
      const outcome = mqtt.publish('alarms', count, { qos: 1 })
      const { messageId = 0 } = await connection.expect('publish')
      connection.send({ cmd: 'puback', messageId, reasonCode: 0x87, properties: { reasonString: 'not you' } })
      expect(await outcome).toMatchObject({ status: 'refused' })
    }
    await pass(WINDOW_MS)
    expect(said(log.lines)).toEqual([
      'the broker refused the publish to "alarms": 0x87 Not authorized, "not you"',
      expect.stringMatching(
        /^publishes that the broker refused with 0x87 Not authorized: 2 more within 10\.\d s$/,
      ),
    ])
    await finish(parts)
  })

  it('makes the health degraded for a minute', async () => {
    const parts = await publisherOnPeer()
    const { mqtt, connection } = parts
    expect(mqtt.health).toMatchObject({ state: 'up', reasons: [] })
    const outcome = mqtt.publish('alarms', 1, { qos: 1 })
    const { messageId = 0 } = await connection.expect('publish')
    connection.send({ cmd: 'puback', messageId, reasonCode: 0x97 })
    await outcome
    expect(mqtt.health).toMatchObject({
      state: 'degraded',
      reasons: ['the broker refused publishes in the last minute: 0x97 Quota exceeded'],
    })
    await pass(60_001, 20_000.5)
    expect(mqtt.health).toMatchObject({ state: 'up', reasons: [] })
    await finish(parts)
  })
})
