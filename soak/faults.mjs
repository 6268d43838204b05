// What goes wrong during a storm. Each fault ends by itself; `heal` of the conductor ends those that have not.
import { setTimeout as wait } from 'node:timers/promises'

const FLOOD = { count: 40, bytes: 4_000 }

/** Faults of one process or its link, with their weights. */
const FAULTS = {
  cut: { weight: 20, inflict: ({ link }) => link.cut() },
  stall: { weight: 12, inflict: stall },
  halfOpen: { weight: 4, inflict: ({ link }) => link.halfOpen() },
  refuse: { weight: 6, inflict: refuse },
  throttle: { weight: 10, inflict: throttle },
  saturate: { weight: 10, inflict: saturate },
  losePings: { weight: 8, inflict: losePings },
  flap: { weight: 8, inflict: flap },
}

/** Faults of a process, which happen also while its link fails. */
const PROCESS_FAULTS = { kill: { weight: 2, inflict: kill }, reopen: { weight: 1, inflict: reopen } }

/** Faults of the broker. */
const BROKER_FAULTS = { restart: { weight: 3, inflict: restart }, pause: { weight: 2, inflict: pause } }

export const FAULT_NAMES = [
  ...Object.keys(FAULTS),
  ...Object.keys(PROCESS_FAULTS),
  ...Object.keys(BROKER_FAULTS),
]

/** Parts of the faults that hit the broker, and processes. */
const BROKER_SHARE = 0.08
const PROCESS_SHARE = 0.25

/** Inflicts one random fault, unless its target has another one. @returns its name */
export function inflictOne(stage, random, isLate) {
  const [place, faults] = placeOf(stage, random)
  const name = pick(faults, random)
  // A process that is never killed shows what leaks over the whole run.
  const isSpared = name === 'kill' && !place.actor.mayBeKilled
  if (place.fault !== undefined || isSpared || isLate()) return undefined
  const fault = faults[name].inflict(place.actor, random, stage)
  place.fault = Promise.resolve(fault)
    .catch(error => stage.fail(`the fault ${name} of ${place.actor.name} failed: ${error.message}`))
    .finally(() => {
      place.fault = undefined
    })
  return name
}

/** Where something goes wrong, and what may go wrong there. */
function placeOf(stage, random) {
  const part = random.next()
  const { forLink, forProcess } = random.pick(stage.actors).places
  if (part < BROKER_SHARE) return [stage.brokerPlace, BROKER_FAULTS]
  return part < BROKER_SHARE + PROCESS_SHARE ? [forProcess, PROCESS_FAULTS] : [forLink, FAULTS]
}

function pick(faults, random) {
  const names = Object.entries(faults).flatMap(([name, { weight }]) => Array(weight).fill(name))
  return random.pick(names)
}

async function stall({ link }, random) {
  await link.stall(random.pick(['to-broker', 'to-client', 'both']))
  await wait(random.between(100, 6_000))
  if (random.chance(0.5)) await link.cut()
  link.heal()
}

async function refuse({ link }, random) {
  link.refuse()
  await link.cut()
  await wait(random.between(100, 2_000))
  link.refuse(false)
}

/** A link that fails again and again. */
async function flap({ link }, random) {
  for (let left = random.between(3, 10); left > 0; left -= 1) {
    await link.cut()
    await wait(random.between(20, 300))
  }
}

async function throttle({ link }, random) {
  link.throttle(random.between(500, 10_000), random.pick(['to-broker', 'to-client', 'both']))
  await wait(random.between(500, 4_000))
  link.heal()
}

/** The downlink is full, so every PINGRESP is late; some are lost. */
async function saturate({ name, link, pings }, random, { witness }) {
  link.throttle(20_000, 'to-client')
  pings.isLosing = random.chance(0.5)
  await witness.call('flood', `soak/flood/${name}`, FLOOD.count, FLOOD.bytes)
  await wait(random.between(1_000, 4_000))
  pings.isLosing = false
  link.heal()
}

async function losePings({ pings }, random) {
  pings.isLosing = true
  await wait(random.between(200, 8_000))
  pings.isLosing = false
}

async function kill(actor, random) {
  await actor.kill()
  await wait(random.between(0, 1_500))
  await actor.start()
  await actor.call('start')
}

async function reopen(actor) {
  await actor.call('reopen')
}

async function restart(broker, random, stage) {
  const downMs = Date.now()
  await broker.call('down')
  await wait(random.between(0, 2_000))
  await broker.call('up')
  await stage.sharesAgain(downMs)
}

async function pause(broker, random) {
  await broker.call('pause', random.between(100, 3_000))
}
