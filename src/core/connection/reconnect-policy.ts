import type { MqttError } from '../errors.js'

/** A growing delay with every default in place. */
export interface ResolvedBackoff {
  readonly min: number
  readonly max: number
  readonly jitter: 'full' | 'decorrelated' | 'none'
}

/** Delays in a row: a list whose last value repeats, a function of failures in a row and the cause, or a growing delay. */
export type DelayRule = readonly number[] | ((attempt: number, cause: MqttError) => number) | ResolvedBackoff

const FALLBACK: ResolvedBackoff = { min: 500, max: 30_000, jitter: 'full' }
const MAX_DELAY_MS = 86_400_000

/**
 * Delay before the next attempt to connect, in milliseconds.
 * @param attempt failures in a row, from 1
 * @param previousMs the delay before this one, 0 for the first
 * @param random a number from 0 up to 1
 */
export function reconnectDelayMs(
  rule: DelayRule,
  attempt: number,
  cause: MqttError,
  previousMs: number,
  random: number,
): number {
  if (typeof rule === 'function') return delayByFunction(rule, attempt, cause, random)
  if ('jitter' in rule) return Math.round(backoffMs(rule, attempt, previousMs, random))
  return rule[Math.min(attempt, rule.length) - 1] ?? 0
}

function delayByFunction(
  rule: (attempt: number, cause: MqttError) => number,
  attempt: number,
  cause: MqttError,
  random: number,
): number {
  // The application's own function must not be able to end the reconnecting.
  let delayMs = Number.NaN
  try {
    delayMs = rule(attempt, cause)
  } catch {}
  return Number.isFinite(delayMs)
    ? Math.min(MAX_DELAY_MS, Math.max(0, delayMs))
    : Math.round(backoffMs(FALLBACK, attempt, 0, random))
}

function backoffMs(rule: ResolvedBackoff, attempt: number, previousMs: number, random: number): number {
  const doubled = Math.min(rule.max, rule.min * 2 ** (attempt - 1))
  switch (rule.jitter) {
    case 'none':
      return doubled
    case 'full':
      return rule.min / 2 + random * (doubled - rule.min / 2)
    case 'decorrelated':
      return Math.min(rule.max, rule.min + random * (Math.max(rule.min, previousMs * 3) - rule.min))
  }
}
