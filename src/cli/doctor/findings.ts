import type { Finding, Rule } from './finding.js'
import { MESSAGE_RULES } from './findings-of-messages.js'
import { SESSION_RULES } from './findings-of-sessions.js'
import { SUBSCRIPTION_RULES } from './findings-of-subscriptions.js'
import type { Observations } from './observations.js'

export const RULES: readonly Rule[] = [...MESSAGE_RULES, ...SUBSCRIPTION_RULES, ...SESSION_RULES]

/** Decides what to say about a broker. */
export function findingsOf(observed: Observations): Finding[] {
  return RULES.filter(
    ({ id, isMqtt5 }) =>
      (isMqtt5 !== true || observed.protocolVersion === 5) && (id !== 'tls' || observed.tls !== undefined),
  ).map(({ id, title, check, decide }) => {
    const found = decide(observed) ?? {
      level: 'unknown' as const,
      text: `not determined: ${observed.failures[check] ?? 'the broker does not support what the check needs'}`,
    }
    return { id, title, ...found }
  })
}
