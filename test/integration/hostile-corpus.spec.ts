import { readFileSync } from 'node:fs'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { isMqttError } from '../../src/core/errors.js'
import { eventually } from '../support/eventually.js'
import { mutated } from '../support/hostile-packets.js'
import { failOnEscapedErrors, listening } from '../support/hostile-session.js'
import { SeededRandom } from '../support/seeded-random.js'
import { acks, qos1, VERSIONS } from '../support/subscriber-on-peer.js'

/** Another run: FUZZ_SEED=… ; a longer one, before a release: CORPUS_ROUNDS=100. */
const SEED = Number(process.env['FUZZ_SEED'] ?? 20_261_127)
const ROUNDS = Number(process.env['CORPUS_ROUNDS'] ?? 5)

/** Packets that once were, or may be, handled wrongly. Add one here for every fault that a hostile broker can cause. */
const CORPUS: Record<string, Record<string, string>> = JSON.parse(
  readFileSync(new URL('../corpus/packets.json', import.meta.url), 'utf8'),
)

failOnEscapedErrors()

describe.each(VERSIONS)('MQTT %i: the corpus of hostile packets', protocolVersion => {
  const packets = Object.entries(CORPUS[protocolVersion] ?? {})

  /** Sends each of these bytes on a connection of its own. */
  async function send(all: readonly Buffer[], firstPacket: boolean): Promise<void> {
    const parts = await listening({ protocolVersion, inbound: { maxPacketBytes: 65_536 } })
    const { peer, session, mqtt, causes } = parts
    mqtt.subscribe('a/+', () => {})
    let { connection } = parts
    for (const bytes of all) {
      if (firstPacket) {
        connection.cut()
        connection = await peer.connection()
        await connection.expect('connect')
      }
      connection.sendBytes(bytes)
      for (let turn = 0; turn < 4; turn += 1) await nextTurn()
      connection.cut()
      connection = await peer.accept()
      await session.connection.whenConnected()
    }
    expect(causes.every(cause => isMqttError(cause) && cause.message !== '')).toBe(true)
    expect(causes.filter(({ message }) => message.includes('internal error'))).toEqual([])
    expect(Object.getPrototypeOf({})).not.toHaveProperty('evl!')
    connection.send(qos1('a/1', 7))
    await eventually(() => mqtt.stats().inbound.handled > 0 && acks(connection).includes(7))
    await session.close()
  }

  const bytesOf = packets.map(([, hex]) => Buffer.from(hex, 'hex'))

  it('affects one connection each, after CONNACK', async () => {
    expect(packets.length).toBeGreaterThan(30)
    await send(bytesOf, false)
  })

  it('affects one attempt each, in place of CONNACK', async () => {
    await send(bytesOf, true)
  })

  it(`affects one connection each if it is changed at random (seed ${SEED})`, async () => {
    const random = new SeededRandom(SEED + protocolVersion)
    const changed = Array.from({ length: ROUNDS }, () => bytesOf.map(bytes => mutated(random, bytes))).flat()
    await send(changed, false)
  })
})
