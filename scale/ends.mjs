// What happens to the messages of a group member that ends, depending on its session and on what follows.
import { setTimeout as wait } from 'node:timers/promises'
import { table } from '../soak/tables.mjs'
import { lostOf, repeatsOf, whenHandled } from './evidence.mjs'
import { Group } from './members.mjs'

/** A slow handler, so that messages of the group are waiting when a member ends. */
const WORK = { waitMs: 60 }
const MESSAGES_PER_SECOND = 200
const BEFORE_MS = 1_500
const AWAY_MS = 1_500
const AFTER_MS = 1_000
const SHORT_EXPIRY_SECONDS = 2
const LONG_EXPIRY_SECONDS = 3_600
const QUIET_MS = 4_000

/** `isLossless`: the documentation promises that nothing is lost. The other rows show why the settings matter. */
const CASES = [
  { session: 'clean', end: 'kill', after: 'restart', isLossless: false },
  { session: 'clean', end: 'terminate', after: 'none', isLossless: true },
  { session: 'short', end: 'kill', after: 'none', isLossless: false },
  { session: 'short', end: 'terminate', after: 'none', isLossless: false },
  { session: 'long', end: 'kill', after: 'none', isLossless: false },
  { session: 'long', end: 'kill', after: 'restart', isLossless: true },
  { session: 'long', end: 'terminate', after: 'restart', isLossless: true },
  { session: 'long', end: 'terminate', after: 'leave', isLossless: true },
]

const TEXT = {
  clean: 'clean: true',
  short: `clean: false, ends after ${SHORT_EXPIRY_SECONDS} s`,
  long: `clean: false, ends after ${LONG_EXPIRY_SECONDS} s`,
  kill: 'kill -9',
  terminate: 'SIGTERM',
  restart: 'returns',
  none: 'does not return',
  leave: 'returns once, with sessionExpiryInterval: 0',
}

async function measure({ session, end, after, isLossless }, { devices }) {
  const expirySeconds = session === 'short' ? SHORT_EXPIRY_SECONDS : LONG_EXPIRY_SECONDS
  const group = await Group.open({
    devices,
    role: { clean: session === 'clean', expirySeconds, work: WORK },
  })
  const names = ['service-0', 'service-1']
  const journals = new Map(names.map(name => [name, group.journalOf(name)]))
  const add = (name, role = {}) => group.add(name, { journal: journals.get(name), ...role })
  for (const name of names) await add(name)
  await group.load.call('pace', MESSAGES_PER_SECOND)
  await wait(BEFORE_MS)
  if (end === 'kill') await group.kill('service-1')
  else await group.terminate('service-1')
  await wait(AWAY_MS)
  if (after === 'restart') await add('service-1')
  if (after === 'leave') {
    await add('service-1', { expirySeconds: 0 })
    await group.whenCaughtUp('service-1')
    await group.terminate('service-1')
  }
  await wait(AFTER_MS)
  await group.load.call('rest')
  const { acknowledged } = await group.load.call('outcomes')
  const handled = await whenHandled(acknowledged, journals, QUIET_MS)
  await group.close()
  const lost = lostOf(acknowledged, handled).length
  const repeats = repeatsOf(handled).length
  return { session, end, after, isLossless, acknowledged: acknowledged.length, lost, repeats }
}

export async function ends({ devices, say }) {
  const rows = []
  for (const each of CASES) {
    const row = await measure(each, { devices })
    say(`  ${TEXT[row.session]}, ${TEXT[row.end]}, ${TEXT[row.after]}: ${row.lost} not handled`)
    rows.push(row)
  }
  return rows
}

/** The law of these rows. */
export const endsLaw = rows => [
  'a member that returns, or that leaves as documented, loses nothing',
  rows
    .filter(({ isLossless, lost }) => isLossless && lost > 0)
    .map(({ session, end, after, lost }) => `${TEXT[session]}, ${TEXT[end]}, ${TEXT[after]}: ${lost}`),
]

export const endsTable = rows =>
  table([
    ['session', 'ends by', 'and', 'acknowledged', 'not handled', 'handled again'],
    ...rows.map(({ session, end, after, acknowledged, lost, repeats }) => [
      TEXT[session],
      TEXT[end],
      TEXT[after],
      acknowledged,
      lost,
      repeats,
    ]),
  ])
