// Processes are killed, added, replaced and removed under load.
import { setTimeout as wait } from 'node:timers/promises'
import { table } from '../soak/tables.mjs'
import { handledIn, lostOf, outOfOrder, repeatsOf, whenHandled } from './evidence.mjs'
import { Group } from './members.mjs'

/** Acknowledgements wait for slow handlers before them, so a killed process has handled messages that are not acknowledged. */
const WORK = { waitMs: 5, slowMs: 150 }
const QUIET_MS = 5_000
const EXPIRY_SECONDS = 3_600

/**
 * Simulates the life of a deployment with persistent sessions and one fixed Client Identifier per process.
 * @returns rows for the table, and the laws with what broke them
 */
export async function faults({ devices, perSecond, pauseMs, say }) {
  const group = await Group.open({
    devices,
    role: { clean: false, expirySeconds: EXPIRY_SECONDS, work: WORK },
  })
  const journals = new Map()
  const exits = []
  const add = (name, role) => {
    journals.set(name, group.journalOf(name))
    return group.add(name, { journal: group.journalOf(name), ...role })
  }
  const terminate = async name => exits.push([name, await group.terminate(name)])
  const step = async (text, ...work) => {
    say(`  ${text}`)
    for (const each of work) await each()
    await wait(pauseMs)
  }

  for (let number = 0; number < 4; number += 1) await add(`service-${number}`)
  await group.load.call('pace', perSecond)
  await step('4 processes')
  await step('kill -9 of service-1', () => group.kill('service-1'))
  await step('one more process, service-4', () => add('service-4'))
  await step('service-1 starts again', () => add('service-1'))
  await step(
    'a new release: each process ends after SIGTERM, and its successor starts',
    ...['service-0', 'service-1', 'service-2', 'service-3', 'service-4'].flatMap(name => [
      () => terminate(name),
      () => add(name),
    ]),
  )
  await step(
    'service-4 leaves: SIGTERM, and once more with a session that ends with it',
    () => terminate('service-4'),
    () => add('service-4', { expirySeconds: 0 }),
    () => group.whenCaughtUp('service-4'),
    () => terminate('service-4'),
  )
  await group.load.call('rest')
  const { acknowledged, others } = await group.load.call('outcomes')
  await whenHandled(acknowledged, journals, QUIET_MS)
  for (const name of [...group.members.keys()]) await terminate(name)
  const handled = handledIn(journals)
  await group.close()
  return verdict({ acknowledged, others, handled, exits, devices, names: [...journals.keys()] })
}

function verdict({ acknowledged, others, handled, exits, devices, names }) {
  const lost = lostOf(acknowledged, handled)
  const repeats = repeatsOf(handled)
  const notKilled = repeats.filter(([, runs]) => runs[0].name !== 'service-1')
  const idle = names.filter(name => ![...handled.values()].some(runs => runs.some(run => run.name === name)))
  const notClean = exits.filter(([, code]) => code !== 0)
  const laws = [
    ['every acknowledged message was handled at least once', lost.map(id => `message ${id}`)],
    ['every publish was acknowledged', Object.entries(others).map(([status, count]) => `${count} ${status}`)],
    [
      'only messages of the killed process were handled again',
      notKilled.map(([id, runs]) => `message ${id}: ${runs.map(({ name }) => name).join(', ')}`),
    ],
    ['every process handled messages', idle],
    ['every SIGTERM ended with code 0', notClean.map(([name, code]) => `${name}: ${code}`)],
  ]
  const numbers = [
    ['acknowledged by the broker', acknowledged.length],
    ['handled at least once', acknowledged.length - lost.length],
    ['lost', lost.length],
    ['handled again', repeats.length],
    ['handled after a later message of the same device', outOfOrder(handled, devices)],
    ...names.map(name => [
      `handled by ${name}`,
      [...handled.values()].filter(runs => runs.some(run => run.name === name)).length,
    ]),
  ]
  return { numbers, laws }
}

export const faultsTable = ({ numbers, laws }) =>
  [
    table(numbers),
    '',
    table([['law', 'broken'], ...laws.map(([text, broken]) => [text, broken.length || '-'])]),
    ...laws.flatMap(([text, broken]) => broken.slice(0, 3).map(example => `${text}: ${example}`)),
  ].join('\n')
