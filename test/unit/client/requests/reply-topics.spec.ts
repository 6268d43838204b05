import { describe, expect, it } from 'vitest'
import { MqttError } from '../../../../src/core/errors.js'
import { holdClock } from '../../../support/held-clock.js'
import { requestsInTheEnvelope } from '../../../support/requests-in-the-envelope.js'

holdClock()

describe('a request in the envelope', () => {
  it('has its topic as pattern, its data unchanged, and its id', async () => {
    const { ask, open, published } = requestsInTheEnvelope()
    await ask('7', 'ask')
    expect(published.map(({ topic, payload }) => [topic, JSON.parse(payload.toString())])).toEqual([
      ['ask', { pattern: 'ask', data: { to: 'ask' }, id: '7' }],
    ])
    open.end('7')
  })

  it.each([
    [
      [
        { id: '7', response: 1 },
        { id: '7', response: 2, isDisposed: true },
      ],
      [1, 2, 'end'],
    ],
    [[{ id: '7', isDisposed: true }], ['end']],
    [
      [
        { id: '7', response: 1 },
        { id: '7', isDisposed: true },
      ],
      [1, 'end'],
    ],
    [[{ id: '7', err: 'broken' }], ['broken']],
    [[{ id: '7', err: null, response: 1, isDisposed: true }], [1, 'end']],
    [
      [
        { id: '7', err: { message: 'warm' }, isDisposed: true },
        { id: '7', response: 1 },
      ],
      ['warm'],
    ],
    [
      [
        { id: '8', response: 1, isDisposed: true },
        { id: '7', response: null, isDisposed: true },
      ],
      [null, 'end'],
    ],
  ])('with the replies %j', async (replies, heard) => {
    const { ask, reply, open } = requestsInTheEnvelope()
    const own = await ask('7', 'ask')
    for (const value of replies) await reply('ask', value)
    expect(own).toEqual(heard)
    expect(open.size).toBe(0)
  })
})

describe('a reply topic', () => {
  it('is subscribed once for all requests on its topic', async () => {
    const { ask, open, added } = requestsInTheEnvelope()
    for (const topic of ['a', 'b', 'a']) {
      await ask(`${topic}-${added.length}`, topic)
    }
    open.failAll(new MqttError('CONNECTION_LOST', 'lost'))
    expect(added).toEqual(['a/reply', 'b/reply'])
  })
})
