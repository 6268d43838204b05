import { Observable } from 'rxjs'
import { expect, it } from 'vitest'
import { ResponseQueue } from '../../../../src/client/requests/response-queue.js'

const failure = new Error('not sent')

it.each([1, 100])('a source is unsubscribed when response %i cannot be sent', async which => {
  let isSubscribed = true
  const responses = new ResponseQueue(1_000, value => ({
    bytes: 1,
    sent: value === which ? Promise.reject(failure) : Promise.resolve(),
  }))
  const source = new Observable<number>(subscriber => {
    for (let value = 1; value <= 200; value += 1) subscriber.next(value)
    return () => {
      isSubscribed = false
    }
  })
  await expect(responses.take(source)).rejects.toBe(failure)
  expect(isSubscribed).toBe(false)
})

it('a response that cannot be sent also fails a source that has ended', async () => {
  const responses = new ResponseQueue(1_000, () => ({ bytes: 1, sent: Promise.reject(failure) }))
  const source = new Observable<number>(subscriber => {
    subscriber.next(1)
    subscriber.complete()
  })
  await expect(responses.take(source)).rejects.toBe(failure)
})
