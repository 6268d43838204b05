import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { MqttSession } from '../../src/client/mqtt-session.js'
import type { SessionLog } from '../../src/core/log-lines.js'
import { MqttService } from '../../src/mqtt.service.js'
import { resolveOptions } from '../../src/options/option-checks.js'
import { ScriptedPeer } from '../../src/testing/index.js'
import { eventually } from '../support/eventually.js'
import { failOnEscapedErrors } from '../support/hostile-session.js'
import { acks, countOf, qos1 } from '../support/subscriber-on-peer.js'

failOnEscapedErrors()

const warnings = vi.spyOn(process, 'emitWarning')
beforeEach(() => {
  warnings.mockReset().mockImplementation(() => {})
})
afterEach(() => {
  warnings.mockReset()
})

/** A log whose every function fails in the given way. */
function failingLog(fail: () => void): SessionLog & { lines: number } {
  const log = { lines: 0, error: write, warn: write, log: write, debug: write }
  function write(): void {
    log.lines += 1
    return fail()
  }
  return log
}

const throwing = () => {
  throw new Error('the disk is full')
}
// Seam: an async function of a user's logger, where the interface says void.
const rejecting = (() => Promise.reject(new Error('the disk is full'))) as () => void

describe('a logger that fails', () => {
  it.each([
    ['by throwing', throwing],
    ['by rejecting', rejecting],
  ])('%s does not stop the client', async (_how, fail) => {
    const peer = new ScriptedPeer()
    const log = failingLog(fail)
    const options = resolveOptions({
      createStream: peer.createStream,
      protocolVersion: 5,
      connect: 'background',
      reconnect: { delayMs: [0], resetAfterMs: 0 },
    })
    const session = new MqttSession(options, log)
    const mqtt = new MqttService(session)
    await session.listen()
    let connection = await peer.accept()
    const handler = () => Promise.reject(new Error('broken'))
    mqtt.subscribe('fails', handler)
    await connection.grant(0x87)
    mqtt.subscribe('works', () => {})
    await connection.grant()
    connection.send(qos1('fails', 1))
    connection.send(qos1('unknown', 2))
    connection.send(qos1('works', 3))
    await eventually(() => acks(connection).length === 3)
    const refused = mqtt.publish('out', 1, { qos: 1 })
    const packet = await connection.find('publish')
    connection.send({ cmd: 'puback', messageId: packet.messageId ?? 0, reasonCode: 0x87 })
    expect(await refused).toMatchObject({ status: 'refused' })
    await connection.cut()
    expect(await mqtt.publish('out', 2)).toMatchObject({ status: 'dropped' })
    connection = await peer.accept()
    await session.connection.whenConnected()
    expect(await mqtt.publish('out', 3)).toMatchObject({ status: 'sent' })
    await session.close()
    expect(countOf(connection, 'disconnect')).toBe(1)
    expect(log.lines).toBeGreaterThan(5)
    expect(warnings.mock.calls).toEqual([['the logger of the client failed: the disk is full']])
  })
})
