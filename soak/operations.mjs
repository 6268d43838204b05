// Operations that a run must perform at least once, as counted in the journals.
import { POLICIES } from './topics.mjs'

const PUBLISHES = POLICIES.flatMap(({ policy, qos }) => qos.map(level => `publish ${policy} ${level}`))

/** How a handler behaves, by the kind of its message. */
export const HANDLER_OPERATIONS = {
  slow: 'slow handler',
  flaky: 'failing handler',
  poison: 'poisoned message',
}

export const OPERATIONS = [
  ...PUBLISHES,
  'backlog in a store',
  'subscribe',
  'unsubscribe',
  'request qos0',
  'request qos1',
  'request inside-handler',
  'request stream-qos0',
  'request stream-qos1',
  'stream that is left early',
  'read iterator',
  'unread iterator',
  'own publish',
  ...Object.values(HANDLER_OPERATIONS),
  'drain',
]
