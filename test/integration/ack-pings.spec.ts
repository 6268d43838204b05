import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { MqttClient } from '../../src/client/index.js'
import { ScriptedPeer } from '../../src/testing/index.js'

/** A client that asks at QoS 1, on a broker that acknowledges the request. @returns PINGREQs of the next 100 ms */
async function pingsAfterRequest(requests: object, qos: 0 | 1): Promise<number> {
  const peer = new ScriptedPeer()
  const client = new MqttClient({
    createStream: peer.createStream,
    protocolVersion: 5,
    keepalive: 0,
    requests,
  })
  const starting = client.start()
  const connection = await peer.accept()
  await starting
  const response = client.request('a/b', 'x', { qos }).catch((error: unknown) => error)
  await connection.grant()
  const { messageId = 0 } = await connection.find('publish')
  const before = connection.received.filter(({ cmd }) => cmd === 'pingreq').length
  if (qos === 1) connection.send({ cmd: 'puback', messageId, reasonCode: 0 })
  for (let ms = 0; ms < 100; ms += 1) {
    await vi.advanceTimersByTimeAsync(1)
    await new Promise(resolve => setImmediate(resolve))
  }
  const pings = connection.received.filter(({ cmd }) => cmd === 'pingreq').length - before
  const closing = client.close()
  await connection.cut()
  await closing
  await response
  return pings
}

describe('requests on a broker that holds back small packets', () => {
  beforeEach(() => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
  })
  afterEach(() => {
    vi.useRealTimers()
  })

  it('at QoS 1 send PINGREQ until 40 ms after the last packet', async () => {
    const pings = await pingsAfterRequest({}, 1)
    expect(pings).toBeGreaterThan(5)
    expect(pings).toBeLessThanOrEqual(21)
  })

  it('send no PINGREQ at QoS 0, or with requests.ackPings false', async () => {
    expect(await pingsAfterRequest({}, 0)).toBe(0)
    expect(await pingsAfterRequest({ ackPings: false }, 1)).toBe(0)
  })
})
