import { deepEqual, equal, ok, rejects } from 'node:assert/strict'
import { isMqttError, type MqttErrorCode } from '../core/errors.js'
import type {
  MessageStore,
  MessageToStore,
  StoreAddition,
  StoredMessage,
  StoredSettlement,
} from '../core/outbound/message-store.js'
import type { StoreOptions } from '../options/client-options.js'

/** Where a store keeps its data: a file, or an object. */
export interface StorePlace {
  /**
   * Returns a store over this data that is not open. Called again, it returns one over the same data, as after a restart
   * of the process. The options are the same in each call.
   */
  store(options?: StoreOptions): MessageStore
}

/** One check of a store. */
export interface StoreCheck {
  /** What a store must do. */
  readonly title: string
  /** Rejects if the store does not do it. */
  run(): Promise<void>
}

/** What a check works with. */
interface OpenStore {
  readonly store: MessageStore
  /** What the listener was told, in order. */
  readonly told: StoredSettlement[]
  /** The positions that the listener was told. */
  readonly gone: number[]
  /** Closes the store, and opens one over the same data. */
  restart(): Promise<OpenStore>
}

type Check = (open: (options?: StoreOptions) => Promise<OpenStore>, place: StorePlace) => Promise<void>

/** Makes checks out of functions, each with a place of its own. */
export function checksOf(
  checks: Readonly<Record<string, Check>>,
  newPlace: () => StorePlace | Promise<StorePlace>,
): StoreCheck[] {
  return Object.entries(checks).map(([title, check]) => ({
    title,
    run: async () => {
      const place = await newPlace()
      const opened = new Set<MessageStore>()
      try {
        await check(options => openAt(place, options, opened), place)
      } finally {
        for (const store of opened) await store.close()
      }
    },
  }))
}

async function openAt(
  place: StorePlace,
  options: StoreOptions | undefined,
  opened: Set<MessageStore>,
): Promise<OpenStore> {
  const store = place.store(options)
  const told: StoredSettlement[] = []
  const gone: number[] = []
  const settled = (settlement: StoredSettlement, position: number): void => {
    told.push(settlement)
    gone.push(position)
  }
  await store.open({ settled })
  opened.add(store)
  const restart = async () => {
    await store.close()
    return openAt(place, options, opened)
  }
  return { store, told, gone, restart }
}

/** A message to store: the payload is its id. */
export function messageFor(messageId: string, given: Partial<MessageToStore> = {}): MessageToStore {
  const payload = Buffer.from(messageId)
  return { messageId, topic: 'alarms', payload, qos: 1, retain: false, storedAtMs: 1_000, ...given }
}

export function positionOf(addition: StoreAddition): number {
  if ('rejected' in addition) throw new Error('the store rejected a message for which it has room')
  return addition.position
}

export async function addAll(store: MessageStore, messages: readonly MessageToStore[]): Promise<number[]> {
  return (await Promise.all(messages.map(message => store.add(message)))).map(positionOf)
}

export const EVERYTHING = { messages: 1_000, bytes: 1_000_000 }
export const DELIVERED = { status: 'delivered', reasonCode: 0 } as const

export async function idsIn(store: MessageStore, after = 0): Promise<string[]> {
  return (await store.read(after, EVERYTHING)).map(({ messageId }) => messageId)
}

function rejectsWith(code: MqttErrorCode, work: Promise<unknown>): Promise<void> {
  return rejects(work, (error: unknown) => {
    ok(isMqttError(error, code), `expected ${code}, but got ${String(error)}`)
    return true
  })
}

/** As text, since a test runner may have an Object and a Uint8Array of its own. */
function shown(message: MessageToStore | StoredMessage | undefined): string {
  return JSON.stringify(message, (_key, value: unknown) => {
    if (value instanceof Object && 'data' in value && 'type' in value) return { hex: hexOf(value.data) }
    return ArrayBuffer.isView(value) ? { hex: hexOf(Object.values(value)) } : sorted(value)
  })
}

const hexOf = (bytes: unknown): string => (Array.isArray(bytes) ? Buffer.from(bytes).toString('hex') : '')

function sorted(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value
  return Object.fromEntries(Object.entries(value).toSorted(([one], [other]) => (one < other ? -1 : 1)))
}

export const basicChecks: Readonly<Record<string, Check>> = {
  'gives ascending positions in the order of the calls, also to calls made at the same time': async open => {
    const { store } = await open()
    const first = positionOf(await store.add(messageFor('a')))
    const positions = [
      first,
      ...(await addAll(
        store,
        ['b', 'c', 'd'].map(id => messageFor(id)),
      )),
    ]
    deepEqual(
      positions,
      positions.toSorted((one, other) => one - other),
    )
    equal(new Set(positions).size, 4)
    deepEqual(await idsIn(store), ['a', 'b', 'c', 'd'])
  },

  'returns every field of a message as it was stored': async open => {
    const { store, restart } = await open()
    const message = messageFor('every-field', {
      topic: 'Fahrzeuge/Ö 7/alarm',
      payload: Uint8Array.from({ length: 256 }, (_, byte) => byte),
      qos: 2,
      retain: true,
      properties: {
        payloadFormatIndicator: true,
        messageExpiryInterval: 60,
        responseTopic: 'responses',
        correlationData: Buffer.from([0, 255, 7]),
        userProperties: { one: '1', list: ['2', '3'] },
        contentType: 'application/json',
      },
      storedAtMs: 1_700_000_000_123,
      expiresAtMs: 1_700_000_060_123,
    })
    const position = positionOf(await store.add(message))
    const expected = shown({ ...message, position })
    equal(shown((await store.read(0, EVERYTHING))[0]), expected)
    const { store: restarted } = await restart()
    equal(shown((await restarted.read(0, EVERYTHING))[0]), expected)
  },

  'stores an empty payload': async open => {
    const { store } = await open()
    await store.add(messageFor('empty', { payload: Buffer.alloc(0) }))
    equal((await store.read(0, EVERYTHING))[0]?.payload.length, 0)
  },

  'keeps the payload of the call when its buffer changes afterwards': async open => {
    const { store } = await open()
    const payload = Buffer.from('before')
    const added = store.add(messageFor('a', { payload }))
    payload.fill('x')
    await added
    payload.fill('y')
    const [stored] = await store.read(0, EVERYTHING)
    equal(Buffer.from(stored?.payload ?? []).toString(), 'before')
  },

  'reads after a position, and at most as many messages and bytes as asked for': async open => {
    const { store } = await open()
    const [first = 0] = await addAll(
      store,
      ['a', 'b', 'c', 'd'].map(id => messageFor(id)),
    )
    deepEqual(await idsIn(store, first), ['b', 'c', 'd'])
    const two = await store.read(first, { messages: 2, bytes: 1_000_000 })
    deepEqual(
      two.map(({ messageId }) => messageId),
      ['b', 'c'],
    )
    const bytesOfTwo = store.contents.bytes / 2
    equal((await store.read(0, { messages: 10, bytes: bytesOfTwo })).length, 2)
    equal((await store.read(0, { messages: 10, bytes: 1 })).length, 1, 'the first, however large it is')
    deepEqual(await idsIn(store, two.at(-1)?.position), ['d'])
    deepEqual(await store.read(first + 1_000, EVERYTHING), [])
  },

  'deletes what is settled, and writes it to the journal': async open => {
    const { store, told } = await open()
    const [a = 0, b = 0] = await addAll(
      store,
      ['a', 'b', 'c'].map(id => messageFor(id)),
    )
    const refused = { status: 'refused', reasonCode: 0x97, reasonString: 'quota exceeded' } as const
    await store.settle([
      { position: a, outcome: { status: 'delivered', reasonCode: 0x10 } },
      { position: b, outcome: refused },
    ])
    deepEqual(await idsIn(store), ['c'])
    equal(store.contents.messages, 1)
    const [newest, before] = await store.outcomes()
    equal(newest?.messageId, 'b')
    equal(newest?.topic, 'alarms')
    equal(newest?.storedAtMs, 1_000)
    ok(newest.settledAtMs > 0)
    equal(JSON.stringify(newest.outcome), JSON.stringify(refused))
    equal(JSON.stringify(before?.outcome), JSON.stringify({ status: 'delivered', reasonCode: 0x10 }))
    deepEqual(told, [], 'its caller knows')
  },

  'ignores a position that has ended already': async open => {
    const { store } = await open()
    const position = positionOf(await store.add(messageFor('a')))
    await store.settle([{ position, outcome: DELIVERED }])
    await store.settle([
      { position, outcome: DELIVERED },
      { position: position + 50, outcome: DELIVERED },
    ])
    equal((await store.outcomes()).length, 1)
    equal(store.contents.messages, 0)
    equal(store.contents.bytes, 0)
  },

  'keeps messages, contents and journal across a restart': async open => {
    const { store, restart } = await open()
    const [a = 0] = await addAll(
      store,
      ['a', 'b', 'c'].map(id => messageFor(id)),
    )
    await store.settle([{ position: a, outcome: DELIVERED }])
    const before = JSON.stringify(store.contents)
    const { store: restarted } = await restart()
    equal(JSON.stringify(restarted.contents), before)
    deepEqual(await idsIn(restarted), ['b', 'c'])
    equal((await restarted.outcomes())[0]?.messageId, 'a')
  },

  'never uses a position again, not even after a restart of an empty store': async open => {
    const { store, restart } = await open()
    const [, last = 0] = await addAll(store, [messageFor('a'), messageFor('b')])
    await store.settle([
      { position: last, outcome: DELIVERED },
      { position: last - 1, outcome: DELIVERED },
    ])
    const { store: restarted } = await restart()
    ok(positionOf(await restarted.add(messageFor('c'))) > last)
  },

  'rejects a second open with STORE_LOCKED, and stays open': async (open, place) => {
    const { store } = await open()
    await rejectsWith('STORE_LOCKED', store.open({ settled: () => {} }))
    await rejectsWith('STORE_LOCKED', place.store().open({ settled: () => {} }))
    positionOf(await store.add(messageFor('a')))
  },

  'rejects calls before open and after close with STORE_FAILED': async (open, place) => {
    await rejectsWith('STORE_FAILED', place.store().add(messageFor('early')))
    const { store } = await open()
    await store.close()
    await rejectsWith('STORE_FAILED', store.add(messageFor('late')))
    await rejectsWith('STORE_FAILED', store.read(0, EVERYTHING))
    await rejectsWith('STORE_FAILED', store.settle([{ position: 1, outcome: DELIVERED }]))
    await rejectsWith('STORE_FAILED', store.expire(0))
    await rejectsWith('STORE_FAILED', store.outcomes())
    await store.close()
  },

  'completes the pending calls before it closes, and keeps its contents': async open => {
    const { store, restart } = await open()
    const added = addAll(
      store,
      ['a', 'b', 'c'].map(id => messageFor(id)),
    )
    const { store: restarted } = await restart()
    equal((await added).length, 3)
    equal(store.contents.messages, 3)
    deepEqual(await idsIn(restarted), ['a', 'b', 'c'])
  },
}
