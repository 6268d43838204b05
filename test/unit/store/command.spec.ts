import { describe, expect, it } from 'vitest'
import { main } from '../../../src/cli/main.js'
import { loadEngine } from '../../../src/store/sqlite-engine.js'
import { StoreConnection } from '../../../src/store/store-connection.js'
import { StoreFile } from '../../../src/store/store-file.js'
import { MESSAGES } from '../../../src/store/store-rescue.js'
import { newFile, removeFilesAfterEach } from '../../support/store-places.js'

removeFilesAfterEach()

async function run(...args: string[]) {
  const written = { out: '', error: '' }
  const code = await main(args, {
    cwd: '/',
    load: () => Promise.reject(new Error('nothing is loaded')),
    out: async text => {
      written.out += text
    },
    error: async text => {
      written.error += text
    },
  })
  return { code, ...written }
}

/** A store that stays open, as in a service. */
async function openStore(file: string): Promise<StoreFile> {
  const connection = new StoreConnection(await loadEngine(), { file, onCorrupt: 'fail' }, MESSAGES)
  const limits = {
    maxMessages: 100,
    maxBytes: 1e6,
    maxAgeMs: undefined,
    overflow: 'drop-oldest',
    maxOutcomes: 100,
  } as const
  return new StoreFile(connection, limits, 1_000)
}

const add = (messageId: string, topic: string, ageMs: number) =>
  ({
    kind: 'add',
    message: {
      messageId,
      topic,
      payload: Buffer.from(`secret ${messageId}`),
      qos: 1,
      retain: false,
      storedAtMs: Date.now() - ageMs,
    },
  }) as const

describe('nestjs-mqtt store', () => {
  it('lists topics, ages and outcomes while a service has the file open, without payloads', async () => {
    const file = newFile()
    const store = await openStore(file)
    store.write(
      [
        add('a', 'trucks/7/alarm', 3 * 86_400_000),
        add('b', 'trucks/7/alarm', 0),
        add('c', 'bills', -60_000),
        add('d', 'bills', 0),
      ],
      1_000,
    )
    const outcome = { status: 'refused', reasonCode: 0x97 } as const
    store.write([{ kind: 'settle', settlements: [{ position: 4, outcome }] }], 2_000)
    const { code, out } = await run('store', file)
    expect(code).toBe(0)
    expect(out).toContain(`${file}: 3 messages,`)
    expect(out).toContain('the oldest 3 days old')
    expect(out).toMatch(/ {2}trucks\/7\/alarm: 2 messages, \d+ bytes, the oldest 3 days old/)
    expect(out).toMatch(/ {2}bills: 1 messages, \d+ bytes, the oldest 0 seconds old/)
    expect(out).toContain('journal of outcomes: 1 refused')
    expect(out).toContain('  refused 0x97: bills, message d, 1970-01-01T00:00:02.000Z')
    expect(out).toContain('damaged records set aside: 0')
    expect(out).not.toContain('secret')
    store.close()
  })

  it('writes JSON with --json', async () => {
    const file = newFile()
    const store = await openStore(file)
    store.write([add('a', 'alarms', 0)], 1_000)
    store.close()
    const { out } = await run('store', file, '--json')
    expect(JSON.parse(out)).toMatchObject({
      file,
      messages: 1,
      setAside: 0,
      topics: [{ topic: 'alarms', messages: 1 }],
      outcomes: {},
    })
  })

  it.each([
    [
      [],
      'the file of the store is missing; specify the path that you passed to sqliteStore(), such as alarms.db',
    ],
    [['/no/such.db'], 'the store /no/such.db does not exist'],
  ])('says what is wrong with the arguments %j', async (args, message) => {
    expect(await run('store', ...args)).toEqual({ code: 1, out: '', error: `nestjs-mqtt: ${message}\n` })
  })
})
