import { describe, expect, it, onTestFinished } from 'vitest'
import { ClientEvents } from '../../../../src/client/events.js'
import {
  currentContext,
  type DeadLetter,
  type HandlerAttempt,
  type HandlerRun,
  type InboundHandler,
  tracking,
} from '../../../../src/client/inbound/delivery.js'
import { HandlerPool } from '../../../../src/client/inbound/handler-pool.js'
import { NotTaken } from '../../../../src/client/inbound/message-stream.js'
import { deliveryTo, namedHandler } from '../../../support/handler-runs.js'
import { holdClock } from '../../../support/held-clock.js'
import { OBSERVED_CLIENT } from '../../../support/observed-client.js'
import { pass } from '../../../support/publisher-on-peer.js'

holdClock()

/** Runs one handler for one message, and notes what happens. */
function running(
  work: (attempt: HandlerAttempt) => unknown,
  fields: Partial<InboundHandler> = {},
  { topic = 'a', qos = 1 as 0 | 1, letterFails = false, maxQueued = 10 } = {},
) {
  const events: string[] = []
  const letters: DeadLetter[] = []
  const attempts: HandlerAttempt[] = []
  /** After which attempt its slot was given back. */
  const pauses: number[] = []
  const handler = namedHandler('h', {
    run: (_packet, attempt) => {
      attempts.push(attempt)
      const result = work(attempt)
      return result instanceof Promise ? result : Promise.resolve(result)
    },
    onFailed: (_packet, error) => events.push(`failed ${error instanceof Error ? error.message : error}`),
    ...fields,
  })
  const slot = { isFree: Promise.resolve() }
  const pool = new (class extends HandlerPool {
    override returned(run: HandlerRun): void {
      events.push('returned')
      super.returned(run)
    }

    override paused(run: HandlerRun): void {
      pauses.push(attempts.length)
      super.paused(run)
    }

    override async resumed(run: HandlerRun): Promise<void> {
      await slot.isFree
      await super.resumed(run)
    }
  })(
    {
      options: { inbound: { concurrency: 1, maxQueued } },
      deadLetters: {
        publish: async letter => {
          letters.push(letter)
          if (letterFails) throw new Error('no hope')
        },
      },
      connection: { terminate: cause => events.push(`disconnect ${cause.reasonCode}`) },
      events: new ClientEvents(OBSERVED_CLIENT, () => {}),
    },
    {
      runBegins: () => {},
      runEnded: (_run, outcome) => events.push(`ended ${outcome}`),
      pumped: () => {},
    },
  )
  const [run] = deliveryTo([handler], topic, { qos }).runs
  if (run === undefined) throw new Error('there is no run')
  expect(pool.begin(run)).toBe(true)
  return { pool, run, events, letters, attempts, pauses, slot }
}

const fail = (): never => {
  throw new Error('broken')
}
const never = () => new Promise<never>(() => {})
const turn = () => pass(1)

describe('a run of HandlerPool', () => {
  it('ends with the handler', async () => {
    const { events } = running(() => 1)
    expect(events).toEqual([])
    await turn()
    expect(events).toEqual(['ended handled'])
  })

  it('is tracked while requests are, unless its handler is internal and makes none', async () => {
    onTestFinished(() => {
      tracking.isOn = false
    })
    running(() => 1).pool.trackRequests()
    const contexts: unknown[] = []
    running(() => contexts.push(currentContext()))
    running(() => contexts.push(currentContext()), { isInternal: true })
    await turn()
    expect(contexts).toEqual([expect.anything(), undefined])
  })

  it('counts a synchronous exception of a handler as a failure', async () => {
    const { events } = running(fail)
    await turn()
    expect(events).toEqual(['failed broken', 'ended failed'])
  })

  it('neither retries nor reports a message that was not accepted', async () => {
    const retries = { attempts: 3, delayMs: [1] }
    const { events, attempts } = running(() => Promise.reject(new NotTaken()), { retries })
    await pass(10, 1)
    expect(events).toEqual(['ended givenBack'])
    expect(attempts).toHaveLength(1)
  })

  it('retries after each delay, of which the last repeats', async () => {
    const { events, attempts } = running(fail, { retries: { attempts: 3, delayMs: [10, 20] } })
    const counts: number[] = []
    for (const waitMs of [1, 10, 20, 20]) {
      await pass(waitMs)
      counts.push(attempts.length)
    }
    expect(counts).toEqual([1, 2, 3, 4])
    expect(attempts.map(({ number }) => number)).toEqual([1, 2, 3, 4])
    expect(events).toEqual(['failed broken', 'ended failed'])
  })

  it('releases its slot before each delay, and waits for a slot afterwards', async () => {
    const parts = running(fail, { retries: { attempts: 2, delayMs: [10] } })
    let free = (): void => {}
    parts.slot.isFree = new Promise(resolve => {
      free = resolve
    })
    await pass(1)
    expect(parts.pauses).toEqual([1])
    await pass(1_000)
    expect(parts.attempts).toHaveLength(1)
    free()
    await pass(1)
    expect(parts.attempts).toHaveLength(2)
    expect(parts.pauses).toEqual([1, 2])
    await pass(10)
    expect(parts.attempts).toHaveLength(3)
  })

  it('retries a limited number of QoS 0 messages at a time', async () => {
    const retries = { attempts: 1, delayMs: [10] }
    const { events, attempts } = running(fail, { retries }, { qos: 0, maxQueued: 0 })
    await pass(20, 10)
    expect(attempts).toHaveLength(1)
    expect(events).toEqual(['failed broken', 'ended failed'])
  })

  it('releases its slot while its dead letter is being published', async () => {
    const { pauses, events } = running(fail, { onFailure: { deadLetter: 'dead' } })
    await turn()
    expect(pauses).toEqual([1])
    expect(events).toEqual(['failed broken', 'ended deadLettered'])
  })

  it('fails at its time limit, and ignores a later result', async () => {
    const late: { reject: (error: Error) => void } = { reject: () => {} }
    const work = () =>
      new Promise<void>((_resolve, reject) => {
        late.reject = reject
      })
    const { events, attempts } = running(work, { timeoutMs: 50 })
    await pass(49)
    expect(events).toEqual([])
    await pass(1)
    expect(events).toEqual(['failed the handler of "h" did not finish within 50 ms', 'ended failed'])
    expect(attempts[0]?.signal.reason).toMatchObject({ code: 'TIMEOUT' })
    late.reject(new Error('late'))
    await turn()
    expect(events).toHaveLength(2)
  })

  it('with "disconnect" closes the connection, and leaves the message to the broker', async () => {
    const { events } = running(fail, { onFailure: 'disconnect' })
    await turn()
    expect(events).toEqual(['failed broken', 'disconnect 131', 'ended givenBack'])
  })
})

describe('a dead letter of HandlerPool', () => {
  const onFailure = { deadLetter: 'dead' }

  it('describes the failure, and is published once', async () => {
    const { events, letters } = running(fail, { onFailure, retries: { attempts: 1, delayMs: [1] } })
    await pass(5, 1)
    expect(letters).toMatchObject([{ topic: 'dead', pattern: 'h', reason: 'broken', attempts: 2 }])
    expect(events).toEqual(['failed broken', 'ended deadLettered'])
  })

  it('is not published for a message on its own topic', async () => {
    const { events, letters } = running(fail, { onFailure }, { topic: 'dead' })
    await turn()
    expect(letters).toEqual([])
    expect(events.at(-1)).toBe('ended failed')
  })

  it.each([
    [1, 'givenBack'],
    [0, 'failed'],
  ] as const)('that cannot be published leaves a message of QoS %i as %s', async (qos, outcome) => {
    const { events } = running(fail, { onFailure }, { qos, letterFails: true })
    await turn()
    expect(events.at(-1)).toBe(`ended ${outcome}`)
  })
})

describe('HandlerPool with manual acknowledgement', () => {
  const manually = { acknowledges: 'manually' } as const

  it('returns with the handler, and ends with ack()', async () => {
    const { events, attempts } = running(() => {}, manually)
    await turn()
    expect(events).toEqual(['returned'])
    attempts[0]?.ack()
    await turn()
    expect(events).toEqual(['returned', 'ended handled'])
  })

  it('waits for the return if ack() is called first', async () => {
    const { events } = running(attempt => {
      attempt.ack()
      return never()
    }, manually)
    await turn()
    expect(events).toEqual([])
  })

  it('applies the time limit until ack()', async () => {
    const { events } = running(() => {}, { ...manually, timeoutMs: 10 })
    await turn()
    await pass(10)
    expect(events.at(-1)).toBe('ended failed')
  })
})

describe('HandlerPool.stop', () => {
  it('ends a delay without another run', async () => {
    const { pool, attempts, events } = running(fail, { retries: { attempts: 5, delayMs: [60_000] } })
    await turn()
    pool.stop()
    await turn()
    expect(attempts).toHaveLength(1)
    expect(events).toEqual(['failed broken', 'ended givenBack'])
  })
})
