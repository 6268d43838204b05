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
import { assertNotRefused, codeOf, type Examination, KEEP_ALIVE_SECONDS } from './examination.js'
import type { ConnackObserved, Observations, TlsObserved, VersionObserved } from './observations.js'
import { Interrupted } from './raw-connection.js'
import { NoConnection } from './target.js'

type Check = (examination: Examination, before: Observed) => Promise<Observed>

type Checks = Readonly<Record<string, Check>>

/** One after the other: they measure times, or others use what they find. */
const FIRST: Checks = { roundTrip, qos1, requests, secondPacket, retained }
/** Side by side. In each of these, later checks use what earlier ones have found. */
const LANES: readonly Checks[] = [
  { messageExpiry },
  { identifiers, overlapping, noLocal, retainOptions },
  { topicCharacters, shared, wildcards, userProperties, topicAlias, ownPacketLimit },
  { qos2, will, session, sysTopics },
]
/** Alone, because they send the most. */
const LAST: Checks = { receiveMaximum, largePublish }

/** The result of a run. */
export interface Examined {
  readonly observations: Observations
  /** Whether there was time for every check. */
  readonly isComplete: boolean
}

/** @throws NoConnection */
export async function examine(examination: Examination): Promise<Examined> {
  const { target } = examination
  const tls = target.isTls ? await target.inspectTls(Math.max(1, examination.leftMs)) : undefined
  const first = await connect(examination, tls)
  const run = new Run(examination, first)
  await run.lane(FIRST)
  await Promise.all(LANES.map(checks => run.lane(checks)))
  await run.lane(LAST)
  return { observations: { ...run.observed, ...first, failures: run.failures }, isComplete: run.isComplete }
}

/** What the checks have found so far. */
class Run {
  observed: Observed
  readonly failures: Record<string, string> = {}
  isComplete = true

  constructor(
    private readonly examination: Examination,
    first: Observed,
  ) {
    this.observed = first
  }

  async lane(checks: Checks): Promise<void> {
    for (const [name, check] of Object.entries(checks)) {
      try {
        if (this.examination.leftMs <= 0) throw new Interrupted('')
        const found = await check(this.examination, this.observed)
        this.observed = { ...this.observed, ...found }
      } catch (error) {
        if (!isExpected(error)) throw error
        const isLate = this.examination.leftMs <= 0
        if (isLate) this.isComplete = false
        this.failures[name] = isLate ? 'no time was left' : error.message
      }
    }
  }
}

const isExpected = (error: unknown): error is Error =>
  error instanceof Interrupted || error instanceof NoConnection || isMqttError(error)

type First = Pick<
  Observations,
  'versions' | 'protocolVersion' | 'connack' | 'requestedKeepAlive' | 'nowMs'
> & {
  readonly tls?: TlsObserved
}

/** Connects with each version. The checks use MQTT 5 if the broker accepts it. */
async function connect(examination: Examination, tls: TlsObserved | undefined): Promise<First> {
  const mqtt5 = await version(examination, 5)
  const mqtt311 =
    examination.target.authentication === undefined ? await version(examination, 4) : WITHOUT_AUTHENTICATION
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
    requestedKeepAlive: KEEP_ALIVE_SECONDS,
    nowMs: Date.now(),
    ...(tls === undefined ? {} : { tls }),
  }
}

/** The client does not fall back to a version that would connect without the authentication. */
const WITHOUT_AUTHENTICATION = {
  observed: { isAccepted: false, failure: 'not tried, because MQTT 3.1.1 has no enhanced authentication' },
  connack: {},
} as const

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
