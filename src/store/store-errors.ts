import { describeCause, isMqttError, MqttError, type MqttErrorCode } from '../core/errors.js'
import { resultCodeOf, SQLITE } from './sqlite-engine.js'

const { PERM, BUSY, LOCKED, READONLY, IOERR, CORRUPT, FULL, CANTOPEN, NOTADB } = SQLITE

const TEXTS: ReadonlyMap<number | undefined, readonly [MqttErrorCode, string]> = new Map([
  [FULL, ['STORE_FAILED', 'the disk is full; free some space, and it works again']],
  [
    READONLY,
    ['STORE_FAILED', 'it is read-only; check the permissions of the file and how the disk is mounted'],
  ],
  [IOERR, ['STORE_FAILED', 'the disk reported an input/output error; see the log of the operating system']],
  [
    CANTOPEN,
    [
      'STORE_FAILED',
      'it cannot be opened; check that its folder exists and that this process may write there',
    ],
  ],
  [
    PERM,
    ['STORE_FAILED', 'this process may not access it; check the permissions of the file and its folder'],
  ],
  [BUSY, ['STORE_LOCKED', 'another process uses it; stop that process, or give each service its own file']],
  [LOCKED, ['STORE_LOCKED', 'another process uses it; stop that process, or give each service its own file']],
  [
    CORRUPT,
    [
      'STORE_CORRUPT',
      "it is damaged and cannot be repaired; keep it for analysis under another name, or set onCorrupt: 'move-aside'",
    ],
  ],
  [
    NOTADB,
    [
      'STORE_CORRUPT',
      "it is not a database; if it was one, keep it for analysis under another name, or set onCorrupt: 'move-aside'",
    ],
  ],
])

/** What a write resolves or rejects with. */
export type WriteResult<T = unknown> = { readonly value: T } | { readonly error: Error }

/** Records contradict each other, although SQLite could read them. */
export class Contradiction extends Error {}

/**
 * Returns the error of a call on a file: what is wrong, and what to do.
 * @param title what and where it is, such as `the store /var/lib/alarms.db`
 */
export function storeError(title: string, cause: unknown): MqttError {
  if (isMqttError(cause)) return cause
  const [code, text] = TEXTS.get(cause instanceof Contradiction ? CORRUPT : resultCodeOf(cause)) ?? [
    'STORE_FAILED',
    describeCause(cause),
  ]
  return new MqttError(code, `${title}: ${text}`, { cause })
}

/** Whether the pages or records of the file contradict each other. */
export function isDamage(error: unknown): boolean {
  if (error instanceof Contradiction) return true
  const code = resultCodeOf(error)
  return code === CORRUPT || code === NOTADB
}

/** After these errors the connection is no longer used, and the next call opens a new one. */
export function needsNewConnection(error: unknown): boolean {
  const code = resultCodeOf(error)
  return code === IOERR || code === CANTOPEN || code === READONLY
}

export const isFull = (error: unknown): boolean => resultCodeOf(error) === FULL
