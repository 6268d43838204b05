// What the handlers do with a message: use the processor, or wait for something outside, such as a database.
import { createHash } from 'node:crypto'
import { setTimeout as wait } from 'node:timers/promises'

const BLOCK = Buffer.alloc(4_096, 'x')
const CALIBRATION_ROUNDS = 20_000

function hash(rounds) {
  for (let round = 0; round < rounds; round += 1) createHash('sha256').update(BLOCK).digest()
}

/** @returns how many rounds of `hash` use this much CPU time here */
export function roundsIn(ms) {
  hash(CALIBRATION_ROUNDS / 10)
  const before = process.cpuUsage()
  hash(CALIBRATION_ROUNDS)
  const { user, system } = process.cpuUsage(before)
  return Math.max(1, Math.round((ms * 1_000 * CALIBRATION_ROUNDS) / (user + system)))
}

/** @returns the work of a handler; every seventh message waits for `slowMs` */
export function workOf({ rounds = 0, waitMs = 0, slowMs = waitMs }) {
  return async id => {
    if (rounds > 0) hash(rounds)
    const ms = id % 7 === 0 ? slowMs : waitMs
    if (ms > 0) await wait(ms)
  }
}

/** Milliseconds of a clock that all processes of this machine share. */
export const nowMs = () => Number(process.hrtime.bigint()) / 1e6
