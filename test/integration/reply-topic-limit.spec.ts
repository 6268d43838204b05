import { expect, it } from 'vitest'
import { holdClock } from '../support/held-clock.js'
import { requestsInTheEnvelope } from '../support/requests-in-the-envelope.js'

holdClock()

const MOST_TOPICS = 256

const askAndEnd = async (
  { ask, open }: ReturnType<typeof requestsInTheEnvelope>,
  topic: string,
): Promise<void> => {
  await ask(topic, topic)
  open.end(topic)
}

it('the least recently used reply topic is removed if there are too many', async () => {
  const all = requestsInTheEnvelope()
  for (let index = 0; index < MOST_TOPICS; index += 1) await askAndEnd(all, String(index))
  await askAndEnd(all, '0')
  await askAndEnd(all, 'new')
  expect(all.routes.size).toBe(MOST_TOPICS)
  expect(['0', '1', 'new'].map(topic => all.routes.has(`${topic}/reply`))).toEqual([true, false, true])
})

it('a reply topic with an open request stays subscribed, and the reply arrives', async () => {
  const all = requestsInTheEnvelope()
  const slow = await all.ask('slow', 'slow')
  for (let index = 0; index < 2 * MOST_TOPICS; index += 1) await askAndEnd(all, String(index))
  expect(all.routes.size).toBeLessThanOrEqual(MOST_TOPICS + 1)
  await all.reply('slow', { id: 'slow', response: 1, isDisposed: true })
  expect(slow).toEqual([1, 'end'])
})
