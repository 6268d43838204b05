import { describe, expect, it, vi } from 'vitest'
import { ResponseStream } from '../../../../src/client/requests/streams.js'
import { MqttError } from '../../../../src/core/errors.js'

const LOST = new MqttError('CONNECTION_LOST', 'lost')
const DONE = { done: true, value: undefined }

describe('a stream', () => {
  it('that failed before it was read fails once', async () => {
    const stream = new ResponseStream(10, 'ask')
    stream.receiver.fail(LOST)
    await expect(stream.next()).rejects.toBe(LOST)
    expect(await stream.next()).toEqual(DONE)
  })

  it('that failed while it is read by several fails all of them', async () => {
    const stream = new ResponseStream(10, 'ask')
    const readers = [stream.next(), stream.next()]
    stream.receiver.fail(LOST)
    expect(await Promise.allSettled(readers)).toMatchObject([{ reason: LOST }, { reason: LOST }])
  })

  it('keeps values that are undefined or null', async () => {
    const stream = new ResponseStream(10, 'ask')
    for (const value of [undefined, null]) stream.receiver.next(value)
    stream.receiver.end()
    const all: unknown[] = []
    for await (const value of stream) all.push(value)
    expect(all).toEqual([undefined, null])
  })

  it('that is left ends its request, discards waiting responses, and resolves waiting readers', async () => {
    const stream = new ResponseStream(10, 'ask')
    const cancel = vi.fn()
    stream.started(cancel)
    stream.receiver.next(1)
    expect(await stream.return()).toEqual(DONE)
    expect(cancel).toHaveBeenCalledTimes(1)
    stream.receiver.fail(LOST)
    expect(await stream.next()).toEqual(DONE)
  })

  it('that ended before its cancel function was set calls it then', () => {
    const stream = new ResponseStream(0, 'ask')
    const cancel = vi.fn()
    stream.receiver.next(1)
    expect(cancel).not.toHaveBeenCalled()
    stream.started(cancel)
    expect(cancel).toHaveBeenCalledTimes(1)
  })

  it('holds as many responses as its limit, and then fails', async () => {
    const stream = new ResponseStream(2, 'ask')
    const cancel = vi.fn()
    stream.started(cancel)
    for (const value of [1, 2, 3, 4]) stream.receiver.next(value)
    stream.receiver.end()
    expect([await stream.next(), await stream.next()]).toEqual([
      { done: false, value: 1 },
      { done: false, value: 2 },
    ])
    await expect(stream.next()).rejects.toMatchObject({ code: 'REQUEST_FAILED' })
    expect(await stream.next()).toEqual(DONE)
    expect(cancel).toHaveBeenCalled()
  })
})
