import { describe, expect, it } from 'vitest'
import { MessageStream, NotTaken, type StreamLimits } from '../../../../src/client/inbound/message-stream.js'
import { HeldBytes } from '../../../../src/core/inbound/open-messages.js'

const NONE = { count: 0, bytes: 0 }
const BYTES = 100

function streamOf(limits: Partial<StreamLimits> = {}) {
  const ends: number[] = []
  const stream = new MessageStream<number>(
    { limit: 2, overflow: 'drop-oldest', held: new HeldBytes(1_000, NONE), ...limits },
    () => ends.push(ends.length),
  )
  /** How each push stands. */
  const states: string[] = []
  const push = (value: number, mayDrop = false): void => {
    const index = states.push('pending') - 1
    stream.push(value, mayDrop ? BYTES : undefined).then(
      () => {
        states[index] = 'done'
      },
      error => {
        states[index] = error instanceof NotTaken ? 'not taken' : 'failed'
      },
    )
  }
  return { stream, push, states, ends }
}

const settled = () => new Promise<void>(resolve => setImmediate(resolve))

describe('MessageStream', () => {
  it('returns received messages in order, and new ones to a waiting reader', async () => {
    const { stream, push } = streamOf()
    push(1)
    push(2)
    expect(await stream.next()).toEqual({ done: false, value: 1 })
    expect(await stream.next()).toEqual({ done: false, value: 2 })
    const waiting = stream.next()
    push(3)
    expect(await waiting).toEqual({ done: false, value: 3 })
  })

  it('finishes a message when the next one is requested', async () => {
    const { stream, push, states } = streamOf()
    push(1)
    push(2)
    await stream.next()
    await settled()
    expect(states).toEqual(['pending', 'pending'])
    await stream.next()
    await settled()
    expect(states).toEqual(['done', 'pending'])
    void stream.next()
    await settled()
    expect(states).toEqual(['done', 'done'])
  })

  it('finishes a message that may be dropped at once', async () => {
    const { push, states } = streamOf()
    push(1, true)
    await settled()
    expect(states).toEqual(['done'])
  })

  it.each([
    ['drop-oldest', [2, 3]],
    ['drop-newest', [1, 2]],
  ] as const)(
    'with %s keeps a limited number of messages that may be dropped, and counts the others',
    async (overflow, kept) => {
      const { stream, push } = streamOf({ overflow })
      for (const value of [1, 2, 3]) push(value, true)
      expect(stream.dropped).toBe(1)
      expect([(await stream.next()).value, (await stream.next()).value]).toEqual(kept)
      for (const value of [4, 5]) push(value, true)
      expect(stream.dropped).toBe(1)
      push(6, true)
      expect(stream.dropped).toBe(2)
    },
  )

  it('never drops the others, and does not count them', async () => {
    const { stream, push } = streamOf({ limit: 1 })
    for (const value of [1, 2, 3]) push(value)
    push(4, true)
    push(5, true)
    expect(stream.dropped).toBe(1)
    const values: unknown[] = []
    for (let count = 0; count < 4; count += 1) values.push((await stream.next()).value)
    expect(values).toEqual([1, 2, 3, 5])
  })

  it('has room for a waiting reader, whatever the limit', async () => {
    const { stream, push } = streamOf({ limit: 1 })
    for (let value = 0; value < 10; value += 1) {
      const next = stream.next()
      push(value, true)
      expect(await next).toEqual({ done: false, value })
    }
    push(10, true)
    expect(stream.dropped).toBe(0)
  })

  it('ends for waiting and later readers, and gives back unread messages once', async () => {
    const { stream, push, states, ends } = streamOf()
    push(1)
    push(2)
    await stream.next()
    stream.end()
    stream.end()
    await settled()
    expect(states).toEqual(['pending', 'not taken'])
    expect(await stream.next()).toEqual({ done: true, value: undefined })
    await settled()
    expect(states).toEqual(['done', 'not taken'])
    expect(ends).toEqual([0])
    push(3)
    await settled()
    expect(states[2]).toBe('not taken')
  })

  it('ends waiting readers', async () => {
    const { stream } = streamOf()
    const waiting = Promise.all([stream.next(), stream.next()])
    stream.end()
    expect(await waiting).toEqual([
      { done: true, value: undefined },
      { done: true, value: undefined },
    ])
  })

  it('that is left finishes all its messages', async () => {
    const { stream, push, states, ends } = streamOf()
    for (const value of [1, 2, 3]) push(value)
    for await (const value of stream) if (value === 2) break
    await settled()
    expect(states).toEqual(['done', 'done', 'done'])
    expect(ends).toEqual([0])
    expect(await stream.next()).toEqual({ done: true, value: undefined })
  })
})
