import { describe, expect, it } from 'vitest'
import { deliveryTo, namedHandler } from '../../../support/handler-runs.js'
import { message } from '../../../support/session-on-peer.js'

const handlers = [namedHandler('1'), namedHandler('2'), namedHandler('3')]

describe('Delivery', () => {
  it('ends with the last of its handlers', () => {
    const delivery = deliveryTo(handlers)
    expect(handlers.map(() => delivery.end('handled'))).toEqual([false, false, true])
  })

  it.each([
    [['handled', 'handled', 'handled'], 'handled'],
    [['handled', 'failed', 'handled'], 'failed'],
    [['failed', 'deadLettered', 'handled'], 'deadLettered'],
    [['dropped', 'deadLettered', 'failed'], 'dropped'],
    [['handled', 'givenBack', 'dropped'], 'givenBack'],
  ] as const)('of %j is %s', (outcomes, outcome) => {
    const delivery = deliveryTo(handlers)
    for (const one of outcomes) delivery.end(one)
    expect(delivery.outcome).toBe(outcome)
  })

  it.each([
    ['the same', message('a', { payload: 'x' }), true],
    ['the same as bytes', message('a', { payload: Buffer.from('x') }), true],
    ['another topic', message('b', { payload: 'x' }), false],
    ['a longer payload', message('a', { payload: 'xx' }), false],
    ['no payload', message('a', { payload: '' }), false],
  ])('tells whether a packet is itself once more: %s', (_what, packet, isSame) => {
    expect(deliveryTo(handlers, 'a', { payload: 'x' }).isSameAs(packet)).toBe(isSame)
  })
})
