import { describe, expect, it } from 'vitest'
import { MAX_PACKET_ID } from '../../src/core/protocol/packets.js'
import type { PeerConnection } from '../../src/testing/index.js'
import { holdClock, quiet } from '../support/held-clock.js'
import {
  comeBack,
  expectAddsUp,
  finish,
  flow,
  goOffline,
  pass,
  publisherOnPeer,
  Watched,
} from '../support/publisher-on-peer.js'

holdClock()

const KEPT = { clean: false, clientId: 'kept' }
const BATCH = 500

const acknowledge = (connection: PeerConnection, messageId: number) =>
  connection.send({ cmd: 'puback', messageId, reasonCode: 0 })

/** Written, and given up after 500 ms. */
async function givenUp(options: Parameters<typeof publisherOnPeer>[0] = {}, receiveMaximum = 1_000) {
  const parts = await publisherOnPeer(options, { properties: { receiveMaximum } })
  const lost = new Watched(parts.mqtt.publish('given up', 1, { qos: 1, timeoutMs: 500 }))
  const { messageId = 0 } = await parts.connection.expect('publish')
  await pass(499)
  expect(lost.outcome).toBeUndefined()
  await pass(1)
  expect(lost.outcome).toMatchObject({ status: 'lost', cause: { code: 'TIMEOUT' } })
  expectAddsUp(parts.mqtt)
  return { ...parts, messageId }
}

describe('a publish that was written and not acknowledged within its timeoutMs', () => {
  it('counts towards the Receive Maximum until the acknowledgement arrives', async () => {
    const parts = await givenUp({ outbound: { whenBlocked: 'wait' } }, 1)
    const next = new Watched(parts.mqtt.publish('next', 2, { qos: 1 }))
    await quiet()
    expect(parts.connection.received.filter(({ cmd }) => cmd === 'publish')).toHaveLength(1)
    expect(parts.mqtt.stats().outbound).toMatchObject({ inFlight: 0, queued: 1, lost: 1 })
    acknowledge(parts.connection, parts.messageId)
    acknowledge(parts.connection, (await parts.connection.expect('publish')).messageId ?? 0)
    expect(await next.promise).toMatchObject({ status: 'acknowledged' })
    expect(parts.mqtt.stats().outbound).toMatchObject({ lost: 1, acknowledged: 1 })
    await finish(parts)
  })

  it('keeps its Packet Identifier until the acknowledgement arrives', async () => {
    const { connection, mqtt, session, messageId } = await givenUp()
    connection.received.splice(0)
    /** Publishes this many, all acknowledged, and gives their Packet Identifiers. */
    const identifiersOf = async (count: number): Promise<Set<number>> => {
      const used = new Set<number>()
      for (let left = count; left > 0; left -= BATCH) {
        const batch = Array.from({ length: Math.min(BATCH, left) }, () => mqtt.publish('t', 1, { qos: 1 }))
        for (let answered = 0; answered < batch.length; ) {
          await flow()
          for (const packet of connection.received.splice(0)) {
            if (packet.cmd !== 'publish') continue
            answered += 1
            used.add(packet.messageId ?? 0)
            acknowledge(connection, packet.messageId ?? 0)
          }
        }
        await flow()
        await Promise.all(batch)
      }
      return used
    }
    // All others, and then the first of them again.
    const used = await identifiersOf(MAX_PACKET_ID - 1)
    expect(used.size).toBe(MAX_PACKET_ID - 1)
    expect(used.has(messageId)).toBe(false)
    expect(await identifiersOf(1)).not.toContain(messageId)
    acknowledge(connection, messageId)
    await quiet()
    expect((await identifiersOf(MAX_PACKET_ID)).has(messageId)).toBe(true)
    await finish({ mqtt, session })
  })

  it('is resent in a persistent session, because the broker has its Packet Identifier, and settles once', async () => {
    const parts = await givenUp(KEPT)
    await goOffline(parts)
    const connection = await comeBack(parts, { sessionPresent: true })
    expect(await connection.expect('publish')).toMatchObject({ dup: true, messageId: parts.messageId })
    acknowledge(connection, parts.messageId)
    await quiet()
    expect(parts.mqtt.stats().outbound).toMatchObject({ attempted: 1, lost: 1, acknowledged: 0 })
    await finish(parts)
  })

  it('is forgotten with the session', async () => {
    const parts = await givenUp(KEPT)
    await goOffline(parts)
    const connection = await comeBack(parts, { sessionPresent: false })
    await quiet()
    expect(connection.received.filter(({ cmd }) => cmd === 'publish')).toEqual([])
    await finish(parts)
  })

  it('ends as lost with its connection, and not a second time at its time limit', async () => {
    const parts = await publisherOnPeer()
    const lost = new Watched(parts.mqtt.publish('t', 1, { qos: 2, timeoutMs: 500 }))
    await parts.connection.expect('publish')
    await goOffline(parts)
    await quiet()
    expect(lost.outcome).toMatchObject({ status: 'lost', cause: { code: 'CONNECTION_LOST' } })
    await pass(500)
    expect(parts.mqtt.stats().outbound).toMatchObject({ attempted: 1, lost: 1 })
    await finish(parts)
  })

  it('is acknowledged if the acknowledgement arrives in time', async () => {
    const parts = await publisherOnPeer()
    const answered = new Watched(parts.mqtt.publish('t', 1, { qos: 1, timeoutMs: 500 }))
    acknowledge(parts.connection, (await parts.connection.expect('publish')).messageId ?? 0)
    await quiet()
    await pass(5_000)
    expect(answered.outcome).toMatchObject({ status: 'acknowledged' })
    expect(parts.mqtt.stats().outbound).toMatchObject({ acknowledged: 1, lost: 0 })
    await finish(parts)
  })
})
