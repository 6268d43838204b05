import { concat, EMPTY, NEVER, Observable, of, range, Subject, throwError } from 'rxjs'
import { describe, expect, it } from 'vitest'
import { ResponseQueue } from '../../../../src/client/requests/response-queue.js'
import { quiet } from '../../../support/held-clock.js'

/** More responses than may be on their way at the same time. */
const MANY = 100

/** A queue whose responses leave at once, or when the test lets them. */
function queue(limit = 1_000, isHeld = false) {
  const sent: unknown[] = []
  const held: (() => void)[] = []
  const responses = new ResponseQueue(limit, (value, isLast) => {
    sent.push(isLast ? ['last', value] : value)
    const left = isHeld ? new Promise<void>(resolve => held.push(resolve)) : Promise.resolve()
    return { bytes: 1, sent: left }
  })
  return { responses, sent, held }
}

describe('the responses of a source', () => {
  it('are sent in order, and the last one is marked if it is known', async () => {
    const { responses, sent } = queue()
    expect(await responses.take(of(1, 2, 3))).toBe('ended')
    expect(sent).toEqual([1, 2, ['last', 3]])
  })

  it('need a separate end if the source ends later', async () => {
    const { responses, sent } = queue()
    const source = new Subject<number>()
    const taken = responses.take(source)
    source.next(1)
    await quiet()
    expect(sent).toEqual([1])
    source.complete()
    expect(await taken).toBe('open')
  })

  it('may be empty', async () => {
    const { responses, sent } = queue()
    expect(await responses.take(EMPTY)).toBe('open')
    expect(sent).toEqual([])
  })

  it('are sent before its error', async () => {
    const { responses, sent } = queue()
    const failure = new Error('broken')
    const source = concat(
      of(1, 2),
      throwError(() => failure),
    )
    await expect(responses.take(source)).rejects.toBe(failure)
    expect(sent).toEqual([1, 2])
  })

  it('wait if many are in flight, and continue with each one that arrives', async () => {
    const { responses, sent, held } = queue(1_000, true)
    const taken = responses.take(range(0, MANY))
    await quiet()
    const first = sent.length
    expect(first).toBeLessThan(MANY)
    held[0]?.()
    await quiet()
    expect(sent).toHaveLength(first + 1)
    while (sent.length < MANY) {
      for (const arrive of held) arrive()
      await quiet()
    }
    for (const arrive of held) arrive()
    expect(await taken).toBe('ended')
    expect(sent).toEqual([...Array.from({ length: MANY - 1 }, (_, index) => index), ['last', MANY - 1]])
  })
})

describe('a source that is faster than the connection', () => {
  it('is ended with an error after the waiting responses', async () => {
    let isSubscribed = false
    const endless = new Observable<number>(subscriber => {
      isSubscribed = true
      for (let value = 0; value < MANY && !subscriber.closed; value += 1) subscriber.next(value)
      return () => {
        isSubscribed = false
      }
    })
    const { responses, sent } = queue(10)
    await expect(responses.take(endless)).rejects.toMatchObject({ code: 'NOT_SENT' })
    expect(sent).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    expect(isSubscribed).toBe(false)
  })
})

describe('a cancel', () => {
  it('unsubscribes, and discards the waiting responses', async () => {
    let isSubscribed = true
    const { responses, sent, held } = queue(1_000, true)
    const source = new Observable<number>(subscriber => {
      for (let value = 0; value < MANY; value += 1) subscriber.next(value)
      return () => {
        isSubscribed = false
      }
    })
    const taken = responses.take(source)
    await quiet()
    const before = sent.length
    responses.cancel()
    expect(isSubscribed).toBe(false)
    for (const arrive of held) arrive()
    expect(await taken).toBe('cancelled')
    expect(sent).toHaveLength(before)
  })

  it('stops a source without a value', async () => {
    const { responses } = queue()
    const taken = responses.take(NEVER)
    responses.cancel()
    expect(await taken).toBe('cancelled')
  })

  it('before the source starts only subscribes to it for a moment', async () => {
    let isSubscribed = false
    const { responses, sent } = queue()
    responses.cancel()
    const source = new Observable<number>(() => {
      isSubscribed = true
      return () => {
        isSubscribed = false
      }
    })
    expect(await responses.take(source)).toBe('cancelled')
    expect([isSubscribed, sent]).toEqual([false, []])
  })

  it.each(['a cancel', 'an abort'])(
    'while responses wait for the link asks an iterable for no further value: %s',
    async how => {
      const asked: number[] = []
      let hasEnded = false
      async function* values() {
        try {
          for (let value = 0; ; value += 1) {
            asked.push(value)
            yield value
          }
        } finally {
          hasEnded = true
        }
      }
      const { responses, held } = queue(1_000, true)
      const controller = new AbortController()
      const taken = responses.takeEach(values(), controller.signal).catch((error: unknown) => error)
      await quiet()
      const before = asked.length
      if (how === 'a cancel') responses.cancel()
      else controller.abort(new Error('too late'))
      for (const arrive of held) arrive()
      await taken
      expect(asked).toHaveLength(before)
      await quiet()
      expect(hasEnded).toBe(true)
    },
  )
})
