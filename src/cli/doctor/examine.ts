import { isMqttError } from '../../core/errors.js'
import {
  largePublish,
  messageExpiry,
  type Observed,
  ownPacketLimit,
  qos1,
  qos2,
  retained,
  roundTrip,
  secondPacket,
  topicAlias,
  userProperties,
} from './check-messages.js'
import { receiveMaximum, requests, session } from './check-sessions.js'
import {
  identifiers,
  noLocal,
  overlapping,
  retainOptions,
  shared,
  sysTopics,
  topicCharacters,
  wildcards,
  will,
} from './check-subscriptions.js'
import { assertNotRefused, codeOf, type Examination } from './examination.js'
import type { ConnackObserved, Observations, TlsObserved, VersionObserved } from './observations.js'
import { Interrupted } from './raw-connection.js'
import { NoConnection, type TargetOptions } from './target.js'

type Check = (examination: Examination, before: Observed, options: TargetOptions) => Promise<Observed>

/** In this order: later checks use what earlier ones have found. */
const CHECKS: Readonly<Record<string, Check>> = {
  roundTrip,
  sysTopics,
  qos1,
  requests: (examination, _before, options) => requests(examination, options),
  secondPacket,
  topicCharacters,
  wildcards,
  shared,
  identifiers,
  overlapping,
  noLocal,
  retained,
  retainOptions,
  userProperties,
  topicAlias,
  ownPacketLimit,
  qos2,
  will,
  session,
  receiveMaximum,
  largePublish,
  messageExpiry,
}

/** The result of a run. */
export interface Examined {
  readonly observations: Observations
  /** Whether there was time for every check. */
  readonly isComplete: boolean
}

/** @throws NoConnection */
export async function examine(examination: Examination, options: TargetOptions): Promise<Examined> {
  const { target } = examination
  const tls = target.isTls ? await target.inspectTls(Math.max(1, examination.leftMs)) : undefined
  const first = await connect(examination, tls)
  const failures: Record<string, string> = {}
  let observed: Observed = first
  let isComplete = true
  for (const [name, check] of Object.entries(CHECKS)) {
    if (examination.leftMs <= 0) {
      failures[name] = 'no time was left'
      isComplete = false
      continue
    }
    try {
      observed = { ...observed, ...(await check(examination, observed, options)) }
    } catch (error) {
      if (!isExpected(error)) throw error
      const isLate = examination.leftMs <= 0
      if (isLate) isComplete = false
      failures[name] = isLate ? 'no time was left' : error.message
    }
  }
  return { observations: { ...observed, ...first, failures }, isComplete }
}

const isExpected = (error: unknown): error is Error =>
  error instanceof Interrupted || error instanceof NoConnection || isMqttError(error)

type First = Pick<Observations, 'versions' | 'protocolVersion' | 'connack' | 'nowMs'> & {
  readonly tls?: TlsObserved
}

/** Connects with each version. The checks use MQTT 5 if the broker accepts it. */
async function connect(examination: Examination, tls: TlsObserved | undefined): Promise<First> {
  const mqtt5 = await version(examination, 5)
  const mqtt311 = await version(examination, 4)
  if (!mqtt5.observed.isAccepted && !mqtt311.observed.isAccepted) {
    const why = mqtt311.observed.failure ?? mqtt5.observed.failure ?? 'it refuses MQTT 5 and MQTT 3.1.1'
    throw new NoConnection(
      'protocol',
      `${examination.target.name} does not respond like an MQTT broker: ${why}; check the port, and that it expects this scheme`,
    )
  }
  const protocolVersion = mqtt5.observed.isAccepted ? 5 : 4
  examination.protocolVersion = protocolVersion
  return {
    versions: { mqtt5: mqtt5.observed, mqtt311: mqtt311.observed },
    protocolVersion,
    connack: protocolVersion === 5 ? mqtt5.connack : {},
    nowMs: Date.now(),
    ...(tls === undefined ? {} : { tls }),
  }
}

async function version(
  examination: Examination,
  protocolVersion: 4 | 5,
): Promise<{ readonly observed: VersionObserved; readonly connack: ConnackObserved }> {
  try {
    const { raw, connack } = await examination.attempt({ protocolVersion })
    raw.close()
    const code = codeOf(connack)
    assertNotRefused(code, examination.target)
    return { observed: { isAccepted: code === 0, code }, connack: connack.properties ?? {} }
  } catch (error) {
    if (!(error instanceof Interrupted)) throw error
    const { message: failure, hasHungUp } = error
    return { observed: { isAccepted: false, failure, hasHungUp }, connack: {} }
  }
}
