import { describe, expect, it } from 'vitest'
import { deadLetter } from '../../src/index.js'
import { Gate } from '../support/gate.js'
import { holdClock } from '../support/held-clock.js'
import { finish, pass } from '../support/publisher-on-peer.js'
import { acks, qos1, settle, subscriberOnPeer, VERSIONS } from '../support/subscriber-on-peer.js'

holdClock()

const LONG_MS = 10_000

describe.each(VERSIONS)(
  'MQTT %i: a message that holds back the acknowledgements of others',
  protocolVersion => {
    async function slowAndQuick() {
      const parts = await subscriberOnPeer({ protocolVersion })
      const gate = new Gate()
      parts.mqtt.subscribe('slow/+', () => gate.pass())
      await parts.connection.grant()
      parts.mqtt.subscribe('quick', () => {})
      await parts.connection.grant()
      const warnings = () => parts.log.visible.filter(text => text.includes('acknowledgements'))
      const oldestMs = () => parts.mqtt.stats().inbound.oldestUnacknowledgedMs
      return { ...parts, gate, warnings, oldestMs }
    }

    it('is named in the log with its handler and age, once in 10 s', async () => {
      const parts = await slowAndQuick()
      parts.connection.send(qos1('slow/1', 1))
      for (let id = 2; id <= 4; id += 1) parts.connection.send(qos1('quick', id))
      await pass(LONG_MS, 100)
      expect(parts.warnings()).toEqual([])
      await pass(2_000, 100)
      expect(parts.warnings()).toEqual([
        'the handler of "slow/+" has not finished a message on "slow/1" after 10 s, and holds back the acknowledgements of 3 messages: acknowledgements are sent in order of arrival; shorten its timeoutMs or retries',
      ])
      await pass(5_000, 100)
      expect(parts.warnings()).toHaveLength(1)
      expect(parts.oldestMs()).toBeGreaterThan(15_000)
      parts.gate.open()
      await settle(parts.mqtt)
      expect(acks(parts.connection)).toEqual([1, 2, 3, 4])
      expect(parts.oldestMs()).toBe(0)
      await finish(parts)
    })

    it('is not named while later messages are handled or wait for a handler', async () => {
      const parts = await slowAndQuick()
      for (let id = 1; id <= 40; id += 1) parts.connection.send(qos1(`slow/${id}`, id))
      await pass(3 * LONG_MS, 100)
      expect(parts.warnings()).toEqual([])
      expect(parts.oldestMs()).toBeGreaterThan(2 * LONG_MS)
      parts.gate.open()
      await finish(parts)
    })

    it('is not named while nothing waits behind it', async () => {
      const parts = await slowAndQuick()
      parts.connection.send(qos1('slow/1', 1))
      await pass(3 * LONG_MS, 100)
      expect(parts.warnings()).toEqual([])
      parts.gate.open()
      await finish(parts)
    })

    it('is named if it fails repeatedly while the window of the broker is full of such messages', async () => {
      const parts = await slowAndQuick()
      const fail = () => Promise.reject(new Error('poison'))
      parts.mqtt.subscribe('poison', fail, { order: 'none', retries: { attempts: 9, delayMs: [5_000] } })
      await parts.connection.grant()
      for (let id = 1; id <= 20; id += 1) parts.connection.send(qos1('poison', id))
      await pass(LONG_MS + 2_000, 100)
      expect(parts.warnings()).toHaveLength(1)
      expect(parts.warnings()[0]).toContain('"poison"')
      expect(parts.warnings()[0]).toContain('19 messages')
      await pass(60_000, 1_000)
      await finish(parts)
    })

    it('is named if its dead letter is refused', async () => {
      const parts = await slowAndQuick()
      const fail = () => Promise.reject(new Error('poison'))
      parts.mqtt.subscribe('poison', fail, { onFailure: deadLetter('dead') })
      await parts.connection.grant()
      parts.connection.send(qos1('poison', 1))
      parts.connection.send(qos1('quick', 2))
      await pass(LONG_MS + 2_000, 100)
      expect(parts.warnings()).toHaveLength(1)
      await finish(parts)
    })
  },
)
