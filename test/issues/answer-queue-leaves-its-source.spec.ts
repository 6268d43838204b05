import { Observable } from 'rxjs'
import { expect, it } from 'vitest'
import { ResponseQueue } from '../../src/client/requests/response-queue.js'

const failure = new Error('not sent')

it.each([1, 100])('a source is left when the answer %i cannot be sent', async which => {
  let isSubscribed = true
  const answers = new ResponseQueue(1_000, value => ({
    bytes: 1,
    sent: value === which ? Promise.reject(failure) : Promise.resolve(),
  }))
  const source = new Observable<number>(subscriber => {
    for (let value = 1; value <= 200; value += 1) subscriber.next(value)
    return () => {
      isSubscribed = false
    }
  })
  await expect(answers.take(source)).rejects.toBe(failure)
  expect(isSubscribed).toBe(false)
})

it('an answer that cannot be sent fails a source that has ended too', async () => {
  const answers = new ResponseQueue(1_000, () => ({ bytes: 1, sent: Promise.reject(failure) }))
  const source = new Observable<number>(subscriber => {
    subscriber.next(1)
    subscriber.complete()
  })
  await expect(answers.take(source)).rejects.toBe(failure)
})
