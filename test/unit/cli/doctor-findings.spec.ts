import { describe, expect, it } from 'vitest'
import type { Finding } from '../../../src/cli/doctor/finding.js'
import { findingsOf, RULES } from '../../../src/cli/doctor/findings.js'
import type { Observations } from '../../../src/cli/doctor/observations.js'
import { EXIT, reportOf, reportOfFailure, textOf } from '../../../src/cli/doctor/report.js'
import { NoConnection } from '../../../src/cli/doctor/target.js'

const NOW_MS = Date.UTC(2026, 0, 1)
const DAY_MS = 86_400_000

/** A broker of MQTT 5 that does everything as the package needs it. */
const GOOD: Observations = {
  protocolVersion: 5,
  versions: { mqtt5: { isAccepted: true, code: 0 }, mqtt311: { isAccepted: true, code: 0 } },
  nowMs: NOW_MS,
  connack: { receiveMaximum: 65_535, topicAliasMaximum: 10 },
  tls: {
    protocol: 'TLSv1.3',
    cipher: 'TLS_AES_256_GCM_SHA384',
    subject: 'broker.example',
    issuer: 'Example CA',
    names: 'DNS:broker.example',
    validToMs: NOW_MS + 90 * DAY_MS,
    chain: ['broker.example', 'Example CA'],
  },
  requestedKeepAlive: 300,
  sysTopics: { code: 0, messages: 0, topics: 0, quietMs: 250 },
  roundTrip: { p50Ms: 1, p99Ms: 3, samples: 60 },
  requests: { p50Ms: 2, p99Ms: 9, samples: 30 },
  secondPacketMs: 0.1,
  qos1: { packet: 'puback', code: 0 },
  withoutSubscriber: { packet: 'puback', code: 0x10 },
  qos2: { packet: 'pubcomp', code: 0 },
  largePublish: { packet: 'puback', code: 0, bytes: 262_144 },
  deliveredQos: { one: 1, two: 2 },
  topicCharacters: [{ sent: 'a.b', received: 'a.b' }],
  wildcards: { code: 0, hasMatched: true },
  shared: { code: 1, published: 20, members: [10, 10] },
  identifiers: { code: 0, returned: [268_000_001] },
  overlapping: { copies: 1, identifiers: [1, 2] },
  noLocal: { code: 1, ownCopies: 0 },
  retained: {
    publish: { packet: 'puback', code: 0 },
    hasArrived: true,
    hasFlag: true,
    hasWildcard: true,
    isRemoved: true,
  },
  retainAsPublished: { flag: true },
  retainHandling: { existing: 0, never: 0 },
  messageExpiry: { sent: 100, received: 98, waitedMs: 2_200, isExpiredGone: true },
  userProperties: { isKept: true, isOrdered: true },
  topicAlias: { maximum: 10, hasArrived: true },
  ownPacketLimit: { limit: 512, hasArrived: false, isAlive: true },
  session: {
    sessionPresent: true,
    hasQueued: true,
    redeliveredDup: true,
    quietMs: 250,
    requestedExpiry: 120,
  },
  will: { hasArrived: true },
  receiveMaximum: { limit: 10, published: 120, before: 10, after: 10 },
  failures: {},
}

function finding(id: string, changed: Partial<Observations>): Finding {
  const found = findingsOf({ ...GOOD, ...changed }).find(candidate => candidate.id === id)
  if (found === undefined) throw new Error(`there is no finding ${id}`)
  return found
}

describe('the findings about a broker', () => {
  it('are ok if it does everything as the package needs it', () => {
    const findings = findingsOf(GOOD).filter(({ level }) => level !== 'ok')
    expect(findings.map(({ id, level }) => [id, level])).toEqual([['sys-topics', 'note']])
  })

  it('have names that are used once', () => {
    const ids = RULES.map(({ id }) => id)
    expect(new Set(ids).size).toBe(ids.length)
  })

  it('leave out on MQTT 3.1.1 what only MQTT 5 has', () => {
    const ids = findingsOf({ ...GOOD, protocolVersion: 4 }).map(({ id }) => id)
    for (const id of ['no-local', 'message-expiry', 'topic-alias', 'user-properties', 'retain-handling'])
      expect(ids).not.toContain(id)
    expect(ids).toContain('retained')
  })

  it('are unknown, with the reason, if a check failed', () => {
    const { will: _will, ...others } = GOOD
    const found = findingsOf({ ...others, failures: { will: 'the broker closed the connection' } })
    expect(found.find(({ id }) => id === 'will')).toMatchObject({
      level: 'unknown',
      text: 'not determined: the broker closed the connection',
    })
  })

  it.each<[string, string, Partial<Observations>, RegExp]>([
    [
      'mqtt-5',
      'note',
      { versions: { mqtt5: { isAccepted: false, code: 1 }, mqtt311: { isAccepted: true } } },
      /^refused with 0x01 Unacceptable protocol version .*"auto" falls back/,
    ],
    [
      'mqtt-5',
      'note',
      {
        versions: {
          mqtt5: { isAccepted: false, failure: 'no CONNACK within 3000 ms' },
          mqtt311: { isAccepted: true },
        },
      },
      /no CONNACK within 3000 ms .*set protocolVersion: 4/,
    ],
    ['small-packets', 'warning', { secondPacketMs: 43.2 }, /43\.2 ms .*Nagle.*set_tcp_nodelay true/],
    ['small-packets', 'ok', { secondPacketMs: 5 }, /5 ms/],
    ['requests', 'warning', { requests: { p50Ms: 44, p99Ms: 90, samples: 30 } }, /p50 44 ms/],
    [
      'requests',
      'ok',
      {
        roundTrip: { p50Ms: 200, p99Ms: 400, samples: 60 },
        requests: { p50Ms: 420, p99Ms: 900, samples: 30 },
      },
      /420/,
    ],
    ['qos-1', 'warning', { qos1: { failure: 'no acknowledgement within 3000 ms' } }, /no acknowledgement/],
    ['qos-1', 'warning', { deliveredQos: { one: 0, two: 2 } }, /delivered at QoS 0/],
    ['qos-2', 'warning', { qos2: { packet: 'puback', code: 0 } }, /with PUBACK.*dedupe/],
    ['qos-2', 'warning', { qos2: { failure: 'the broker closed the connection' } }, /closed the connection/],
    ['qos-2', 'note', { connack: { maximumQoS: 1 } }, /Maximum QoS 1 .*QOS_NOT_SUPPORTED/],
    ['qos-2', 'note', { deliveredQos: { one: 1, two: 1 } }, /delivered at QoS 1/],
    ['no-subscriber', 'note', { withoutSubscriber: { packet: 'puback', code: 0 } }, /NO_RESPONDER/],
    ['packet-size', 'note', { connack: { maximumPacketSize: 131_072 } }, /131072 bytes .*PACKET_TOO_LARGE/],
    [
      'packet-size',
      'warning',
      { largePublish: { failure: 'the broker closed the connection', bytes: 262_144 } },
      /262144 bytes failed, although it announces no limit/,
    ],
    [
      'own-packet-size',
      'warning',
      { ownPacketLimit: { limit: 512, hasArrived: true, isAlive: true } },
      /512 bytes.*0x95/,
    ],
    ['topic-alias', 'note', { connack: {} }, /accepts no Topic Alias/],
    [
      'topic-alias',
      'warning',
      { topicAlias: { maximum: 10, hasArrived: false } },
      /outbound\.topicAlias: false/,
    ],
    [
      'message-expiry',
      'warning',
      { messageExpiry: { sent: 100, received: 100, waitedMs: 2_200, isExpiredGone: true } },
      /not counted down: still 100 s/,
    ],
    [
      'message-expiry',
      'warning',
      { messageExpiry: { sent: 100, received: 98, waitedMs: 2_200, isExpiredGone: false } },
      /after it had expired/,
    ],
    ['user-properties', 'warning', { userProperties: { isKept: true, isOrdered: false } }, /different order/],
    [
      'topic-characters',
      'warning',
      {
        topicCharacters: [
          { sent: 'a.b', received: 'a/b' },
          { sent: 'a b', received: undefined, failure: 'the broker closed the connection' },
          { sent: 'a//b', received: 'a//b' },
        ],
      },
      /^"a\.b" arrives as "a\/b", "a b" does not arrive \(the broker closed the connection\) /,
    ],
    ['wildcards', 'warning', { wildcards: { code: 0x87, hasMatched: false } }, /0x87 Not authorized/],
    [
      'shared-subscriptions',
      'note',
      { connack: { sharedSubscriptionAvailable: false } },
      /do not set sharedGroup/,
    ],
    [
      'shared-subscriptions',
      'warning',
      { shared: { code: 1, published: 20, members: [0, 0] } },
      /delivers nothing/,
    ],
    [
      'shared-subscriptions',
      'warning',
      { shared: { code: 1, published: 20, members: [20, 20] } },
      /each received a copy/,
    ],
    [
      'shared-subscriptions',
      'warning',
      { shared: { code: 1, published: 20, members: [7, 9] } },
      /messages are lost/,
    ],
    ['subscription-identifiers', 'warning', { identifiers: { code: 0, returned: [] } }, /not returned/],
    [
      'overlapping-filters',
      'note',
      { overlapping: { copies: 2, identifiers: [1, 2] } },
      /2 copies.*each handler runs once/,
    ],
    ['overlapping-filters', 'warning', { overlapping: { copies: 2, identifiers: [] } }, /2 copies.*dedupe/],
    ['no-local', 'warning', { noLocal: { code: 1, ownCopies: 1 } }, /own messages are returned/],
    ['retained', 'note', { connack: { retainAvailable: false } }, /does not support them/],
    [
      'retained',
      'warning',
      {
        retained: {
          publish: { packet: 'puback', code: 0 },
          hasArrived: false,
          hasFlag: false,
          hasWildcard: false,
          isRemoved: true,
        },
      },
      /accepted, but not stored/,
    ],
    [
      'retained',
      'warning',
      {
        retained: {
          publish: { packet: 'puback', code: 0 },
          hasArrived: true,
          hasFlag: true,
          hasWildcard: false,
          isRemoved: true,
        },
      },
      /not delivered to a filter with a wildcard/,
    ],
    ['retain-as-published', 'warning', { retainAsPublished: { flag: false } }, /lose their RETAIN flag/],
    ['retain-handling', 'warning', { retainHandling: { existing: 1, never: 0 } }, /despite 1/],
    [
      'session',
      'warning',
      {
        session: {
          sessionPresent: false,
          hasQueued: false,
          redeliveredDup: undefined,
          quietMs: 250,
          requestedExpiry: 120,
        },
      },
      /not kept/,
    ],
    [
      'session',
      'note',
      {
        session: {
          sessionPresent: true,
          hasQueued: true,
          redeliveredDup: true,
          quietMs: 250,
          requestedExpiry: 120,
          grantedExpiry: 60,
        },
      },
      /instead of the 120 s requested, the session ends after 60 s/,
    ],
    [
      'redelivery',
      'note',
      {
        session: {
          sessionPresent: true,
          hasQueued: true,
          redeliveredDup: undefined,
          quietMs: 250,
          requestedExpiry: 120,
        },
      },
      /did not arrive again within 250 ms/,
    ],
    [
      'receive-maximum',
      'warning',
      { receiveMaximum: { limit: 10, published: 120, before: 10, after: 100 } },
      /overrun after the first acknowledgements: 100 .* allows 10/,
    ],
    [
      'receive-maximum',
      'warning',
      { receiveMaximum: { limit: 10, published: 120, before: 120, after: 120 } },
      /overrun: 120/,
    ],
    [
      'receive-maximum',
      'warning',
      { receiveMaximum: { limit: 10, published: 120, before: 1, after: 1 } },
      /one message at a time/,
    ],
    [
      'receive-maximum',
      'note',
      { receiveMaximum: { limit: 10, published: 120, before: 5, after: 5 } },
      /only 5 messages/,
    ],
    ['broker-window', 'note', { connack: { receiveMaximum: 20 } }, /accepts 20 publishes in flight/],
    [
      'keep-alive',
      'note',
      { connack: { serverKeepAlive: 60 } },
      /sets Keep Alive to 60 s instead of the 300 s requested/,
    ],
    ['keep-alive', 'ok', { connack: { serverKeepAlive: 300 } }, /accepts the value of the client/],
    ['will', 'warning', { will: { hasArrived: false } }, /not published within 3 s/],
    [
      'sys-topics',
      'note',
      {
        sysTopics: { code: 0, messages: 90, topics: 46, quietMs: 250 },
        brokerVersion: 'mosquitto version 2.0.11',
      },
      /readable: 46 topics.*2\.0\.11/,
    ],
    [
      'sys-topics',
      'note',
      { sysTopics: { code: 0, messages: 3, topics: 1, quietMs: 250 } },
      /readable: 1 topic if other clients/,
    ],
  ])('%s is a %s when it should be', (id, level, changed, pattern) => {
    const { level: found, text, advice = '' } = finding(id, changed)
    expect(`${text} ${advice}`).toMatch(pattern)
    expect(found).toBe(level)
  })

  it('warn of a certificate that expires within 30 days', () => {
    const tls = { ...GOOD.tls, validToMs: NOW_MS + 29 * DAY_MS } as Observations['tls']
    expect(finding('tls', tls === undefined ? {} : { tls })).toMatchObject({
      level: 'warning',
      text: expect.stringContaining('valid until 2026-01-30 (29 days)'),
      options: ['caPath', 'certPath', 'keyPath'],
    })
  })

  it('have advice for every warning', () => {
    const { receiveMaximum } = GOOD
    expect(receiveMaximum).toBeDefined()
    const bad = findingsOf({
      ...GOOD,
      secondPacketMs: 40,
      qos2: { packet: 'puback' },
      will: { hasArrived: false },
    })
    for (const { level, advice } of bad) if (level === 'warning') expect(advice).toMatch(/[a-z]/)
  })
})

const RUN = {
  target: 'mqtt://broker.example:1883',
  durationMs: 1_234,
  traffic: { packetsOut: 10, bytesOut: 2_048, packetsIn: 12, bytesIn: 4_000 },
  leftBehind: [],
}

describe('the report of the doctor', () => {
  it.each([
    ['healthy', GOOD, true, EXIT.healthy],
    ['warnings', { ...GOOD, secondPacketMs: 44 }, true, EXIT.warnings],
    ['incomplete', GOOD, false, EXIT.incomplete],
  ] as const)('has the exit code of a run that is %s', (_name, observations, isComplete, exitCode) => {
    expect(reportOf({ observations, isComplete }, RUN).exitCode).toBe(exitCode)
  })

  it('shows what to do below each note and warning, and the sums', () => {
    const text = textOf(reportOf({ observations: { ...GOOD, secondPacketMs: 44 }, isComplete: true }, RUN))
    expect(text).toMatch(/^mqtt:\/\/broker\.example:1883, checked with MQTT 5\n\nok {7}MQTT 5 +accepted\n/)
    expect(text).toMatch(
      /\nwarning {2}Small packets .*\n {9}-> set "set_tcp_nodelay true".*\n {12}options: requests\.ackPings/,
    )
    expect(text).toMatch(
      /\n\d+ ok, 1 note, 1 warning, 0 unknown; 10 packets sent \(2 KiB\), 12 received, 1\.2 s\n$/,
    )
  })

  it('names what was left on the broker', () => {
    const left = reportOf({ observations: GOOD, isComplete: true }, { ...RUN, leftBehind: ['doctor1n2'] })
    expect(textOf(left)).toContain('Not removed from the broker: doctor1n2.')
  })

  it('has the reason if there is no connection', () => {
    const failed = new NoConnection('refused', 'mqtt://broker.example: connect ECONNREFUSED')
    expect(reportOfFailure(failed, RUN)).toMatchObject({
      exitCode: 2,
      findings: [],
      error: { kind: 'refused', message: 'mqtt://broker.example: connect ECONNREFUSED' },
    })
  })
})
