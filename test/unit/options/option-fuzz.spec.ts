import { readFileSync } from 'node:fs'
import { inspect } from 'node:util'
import { describe, expect, it } from 'vitest'
import { isMqttError } from '../../../src/core/errors.js'
import { resolveOptions } from '../../../src/options/option-checks.js'
import { PASS_THROUGH } from '../../../src/options/pass-through.js'
import { SeededRandom } from '../../support/seeded-random.js'

/** Another run: FUZZ_SEED=… ; a longer one, before a release: FUZZ_OPTIONS=1000000. */
const SEED = Number(process.env['FUZZ_SEED'] ?? 20_261_127)
const RUNS = Number(process.env['FUZZ_OPTIONS'] ?? 8_000)

const CORPUS: unknown[] = JSON.parse(
  readFileSync(new URL('../../corpus/options.json', import.meta.url), 'utf8'),
)
const VALUES = [
  ...CORPUS,
  undefined,
  Number.NaN,
  Number.POSITIVE_INFINITY,
  -0,
  7n,
  Symbol('s'),
  () => {},
  async () => {},
  new Date(0),
  new Map(),
  Buffer.from('hunter2'),
  new Uint8Array(1),
  Object.create(null),
  Object.freeze({ min: 1 }),
  new Proxy({}, {}),
  new Error('hunter2'),
]
const NAMES = [
  ...Object.keys(PASS_THROUGH),
  ...[
    'url',
    'connect',
    'connectTimeoutMs',
    'protocolVersion',
    'reconnect',
    'inbound',
    'outbound',
    'requests',
    'codec',
  ],
  ...[
    'sharedGroup',
    'variables',
    'credentials',
    'onStopped',
    'refusedSubscription',
    'drainTimeoutMs',
    'presence',
  ],
  ...[
    'localAddress',
    'createStream',
    'envelope',
    'allowResponseTopic',
    'caPath',
    'certPath',
    'keyPath',
    'passphrase',
    'store',
  ],
  ...['__proto__', 'constructor', 'toString', 'Url', ''],
]

function anyOf<T>(random: SeededRandom, values: readonly T[]): T | undefined {
  return values[random.below(values.length)]
}

function anyOptions(random: SeededRandom): unknown {
  if (random.chance(0.05)) return anyOf(random, VALUES)
  const names = Array.from({ length: random.below(6) }, () => anyOf(random, NAMES))
  const entries: [string, unknown][] = names.map(name => [name ?? '', anyValue(random)])
  return Object.fromEntries(random.chance(0.7) ? [['url', 'mqtt://h'], ...entries] : entries)
}

/** A value of the corpus, or an object that has some of them. */
function anyValue(random: SeededRandom): unknown {
  if (random.chance(0.8)) return anyOf(random, VALUES)
  const inner = Array.from(
    { length: 1 + random.below(3) },
    () => [anyOf(random, INNER) ?? '', anyOf(random, VALUES)] as const,
  )
  return Object.fromEntries(inner)
}

const INNER = [
  ...[
    'delayMs',
    'resetAfterMs',
    'verdict',
    'min',
    'max',
    'jitter',
    'concurrency',
    'maxInFlight',
    'maxQueued',
    'overflow',
  ],
  ...[
    'whenBlocked',
    'maxDelayMs',
    'timeoutMs',
    'topic',
    'payload',
    'qos',
    'retain',
    'properties',
    'online',
    'offline',
  ],
  '__proto__',
]

describe('any options', () => {
  it(`are resolved, or refused with one INVALID_OPTION that shows no secret (${RUNS} runs, seed ${SEED})`, () => {
    const random = new SeededRandom(SEED)
    const counts = { resolved: 0, refused: 0 }
    for (let run = 0; run < RUNS; run += 1) {
      const options = anyOptions(random)
      try {
        // Seam: options come from untyped code.
        resolveOptions(options as Parameters<typeof resolveOptions>[0])
        counts.resolved += 1
      } catch (error) {
        if (!isMqttError(error, 'INVALID_OPTION'))
          throw new Error(`run ${run}: ${inspect(options)}`, { cause: error })
        expect(error.message).not.toContain('hunter2')
        counts.refused += 1
      }
    }
    expect(counts.resolved).toBeGreaterThan(RUNS / 50)
    expect(counts.refused).toBeGreaterThan(RUNS / 2)
    expect(Object.keys(Object.prototype)).toEqual([])
  })
})
