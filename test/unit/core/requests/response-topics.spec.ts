import { expect, it } from 'vitest'
import { ResponseTopics } from '../../../../src/core/requests/request-rules.js'

it('contains topics with the prefix, and added ones', () => {
  const replies = new ResponseTopics('fleet/responses')
  replies.add('ask/reply')
  const topics = ['fleet/responses/a', 'ask/reply', 'fleet/responses', 'fleet/responses-too', 'other/reply']
  expect(topics.map(topic => replies.has(topic))).toEqual([true, true, false, false, false])
})

it('removes the least recently used topic if there are more than 1,000', () => {
  const replies = new ResponseTopics('responses')
  for (let index = 0; index < 1_000; index += 1) replies.add(`${index}/reply`)
  replies.add('0/reply')
  expect([replies.has('0/reply'), replies.has('1/reply')]).toEqual([true, true])
  replies.add('1000/reply')
  expect(['0/reply', '1/reply', '2/reply', '1000/reply'].map(topic => replies.has(topic))).toEqual([
    true,
    false,
    true,
    true,
  ])
})
