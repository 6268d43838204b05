// What goes wrong during a storm. Each fault ends by itself; `heal` of the stage ends those that have not.
import { setTimeout as wait } from 'node:timers/promises'

const FLOOD = { count: 40, bytes: 4_000 }
/** Stored messages of a publisher, and the rate at which its link then carries them. */
const BACKLOG = { messages: 60, bytesPerSecond: 6_000 }
const MOST_BREAKS = 3

const LINK = ({ places }) => [places.forLink]
const PROCESS = ({ places }) => [places.forProcess]
const BOTH = ({ places }) => [places.forLink, places.forProcess]
const BROKER = ({ place }) => [place]

const mayBeKilled = actor => actor.mayBeKilled
const isPublisher = actor => actor.kind === 'publisher'

/**
 * How often each fault happens relative to the others, where, and to which processes. A process that is never killed shows what
 * leaks over the whole run. `inflict` returns false if the fault had no effect.
 */
const FAULTS = {
  cut: { weight: 8, places: LINK, inflict: ({ link }) => link.cut() },
  stall: { weight: 5, places: LINK, inflict: stall },
  'half open': { weight: 2, places: LINK, inflict: ({ link }) => link.halfOpen() },
  refuse: { weight: 3, places: LINK, inflict: refuse },
  throttle: { weight: 4, places: LINK, inflict: throttle },
  'saturated downlink': { weight: 4, places: LINK, inflict: saturate },
  'lost PINGRESP': { weight: 4, places: LINK, inflict: losePings },
  flap: { weight: 3, places: LINK, inflict: flap },
  'kill -9': { weight: 4, places: PROCESS, inflict: kill, isFor: mayBeKilled },
  'kill -9 while a handler runs': {
    weight: 3,
    places: PROCESS,
    inflict: killHandling,
    isFor: actor => actor.kind === 'service' && mayBeKilled(actor),
  },
  drain: { weight: 3, places: PROCESS, inflict: actor => actor.call('reopen') },
  'cut while a store drains': { weight: 4, places: BOTH, inflict: cutDraining, isFor: isPublisher },
  'kill -9 while a store drains': {
    weight: 2,
    places: BOTH,
    inflict: killDraining,
    isFor: actor => isPublisher(actor) && mayBeKilled(actor),
  },
  'broker restart': { weight: 2, places: BROKER, inflict: restart },
  'broker pause': { weight: 2, places: BROKER, inflict: pause },
}
export const FAULT_NAMES = Object.keys(FAULTS)

/** Chooses the faults: first each of them once, then by weight. A fault without a free target is tried again later. */
export class Faults {
  /** Faults that have ended. */
  counts = Object.fromEntries(FAULT_NAMES.map(name => [name, 0]))

  constructor(stage, random) {
    this.stage = stage
    this.random = random
    this.deck = shuffled(FAULT_NAMES, random)
  }

  get haveAllHappened() {
    return Object.values(this.counts).every(count => count > 0)
  }

  /** Inflicts the first fault of the deck that has a free target. */
  inflictOne(isLate) {
    if (isLate()) return
    const { random } = this
    for (const [index, name] of this.deck.entries()) {
      const target = this.targetOf(FAULTS[name])
      if (target === undefined) continue
      this.deck.splice(index, 1)
      if (this.deck.length === 0)
        this.deck = shuffled(
          FAULT_NAMES.flatMap(each => Array(FAULTS[each].weight).fill(each)),
          random,
        )
      return this.inflict(name, target)
    }
  }

  inflict(name, target) {
    const places = FAULTS[name].places(target)
    const fault = Promise.resolve(FAULTS[name].inflict(target, this.random, this.stage))
      .then(
        hasHappened => {
          if (hasHappened !== false) this.counts[name] += 1
        },
        error => this.stage.fail(`the fault "${name}" of ${target.name} failed: ${error.message}`),
      )
      .finally(() => {
        for (const place of places) place.fault = undefined
      })
    for (const place of places) place.fault = fault
  }

  targetOf({ places, isFor = () => true }) {
    const targets = places === BROKER ? [this.stage.broker] : this.stage.actors.filter(isFor)
    return shuffled(targets, this.random).find(target =>
      places(target).every(({ fault }) => fault === undefined),
    )
  }
}

function shuffled(items, random) {
  const left = [...items]
  return items.map(() => left.splice(random.between(0, left.length - 1), 1)[0])
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
  const before = pings.lost
  pings.isLosing = true
  await wait(random.between(200, 8_000))
  pings.isLosing = false
  return pings.lost > before
}

async function kill(actor, random) {
  await actor.kill()
  await wait(random.between(0, 1_500))
  await actor.start()
  await actor.call('start')
}

/** A message is acknowledged when its handler has finished, so the broker sends it again. */
async function killHandling(actor, random) {
  const isBusy = await actor.call('busy')
  await kill(actor, random)
  return isBusy
}

/** The connection ends while the store of a publisher drains over a slow link. The bytes on their way are lost. */
async function cutDraining(actor, random) {
  await fillStore(actor, random)
  let isDraining = true
  for (let left = random.between(1, MOST_BREAKS); left > 0; left -= 1) {
    isDraining = (await whileDraining(actor, random)) && isDraining
    await actor.link.cut()
  }
  actor.link.heal()
  return isDraining
}

/** The same, and the process ends too. */
async function killDraining(actor, random) {
  await fillStore(actor, random)
  const isDraining = await whileDraining(actor, random)
  await actor.kill()
  await actor.link.cut()
  await actor.start()
  await actor.call('start')
  if (random.chance(0.5)) {
    await whileDraining(actor, random)
    await actor.link.cut()
  }
  actor.link.heal()
  return isDraining
}

async function fillStore(actor, random) {
  const { link } = actor
  link.refuse()
  await link.cut()
  await actor.call('backlog', BACKLOG.messages)
  await wait(random.between(100, 500))
  link.throttle(BACKLOG.bytesPerSecond, 'to-broker')
  link.refuse(false)
}

async function whileDraining(actor, random) {
  const isDraining = await actor.call('draining')
  await wait(random.between(50, 500))
  return isDraining
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
