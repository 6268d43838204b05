// npm run doctor:check: compares what `nestjs-mqtt doctor` says about every broker that is installed with a second opinion
// (scripts/brokers/second_opinion.py: paho-mqtt, and packets encoded in Python). The doctor runs through a forwarder that counts
// its packets. Names of brokers limit the run. Exits with 1 if they differ. Needs python3-paho-mqtt of Debian.
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { isDeepStrictEqual, promisify } from 'node:util'
import { BROKERS } from './brokers/start.mjs'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const RUN_LIMIT_MS = 120_000
const run = promisify(execFile)

/** Counts the packets of one direction by their fixed headers (MQTT 5, 2.1). */
class PacketCounter {
  packets = 0
  bytes = 0
  #pending = Buffer.alloc(0)

  read(chunk) {
    this.bytes += chunk.length
    this.#pending = Buffer.concat([this.#pending, chunk])
    for (;;) {
      let [length, at, byte] = [0, 1, 0x80]
      for (; byte & 0x80 && at < this.#pending.length; at += 1) {
        byte = this.#pending[at]
        length += (byte & 0x7f) * 128 ** (at - 1)
      }
      if (byte & 0x80 || this.#pending.length < at + length) return
      this.packets += 1
      this.#pending = this.#pending.subarray(at + length)
    }
  }
}

/** Forwards connections, and counts what passes. */
async function forwarder(port) {
  const counted = { connections: 0, packetsOut: 0, bytesOut: 0, packetsIn: 0, bytesIn: 0 }
  const server = createServer({ noDelay: true }, socket => {
    counted.connections += 1
    const broker = connect({ port, host: '127.0.0.1', noDelay: true })
    for (const [from, to, way] of [
      [socket, broker, 'Out'],
      [broker, socket, 'In'],
    ]) {
      const counter = new PacketCounter()
      from.on('data', chunk => {
        const before = { ...counter }
        counter.read(chunk)
        counted[`packets${way}`] += counter.packets - before.packets
        counted[`bytes${way}`] += counter.bytes - before.bytes
      })
      from.on('error', () => to.destroy())
      from.on('close', () => to.destroy())
      from.pipe(to)
    }
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return { port: server.address().port, counted, stop: () => server.close() }
}

/** Whether two times have the same order of magnitude. Each tool adds a delay of its own, and so does a busy machine. */
const isAlike = (one, other) => Math.abs(one - other) < 50
/** Packets may be written to a connection that has just ended. */
const isCounted = (report, counted) =>
  Object.entries(counted).every(([name, count]) => Math.abs(count - report[name]) <= 0.02 * count)
const isSlow = ms => ms > 25

/** By the id of a finding: pairs of what the doctor observed, and what the second tool did. */
const COMPARED = {
  'mqtt-5': (o, s) => [
    [o.versions.mqtt5.isAccepted, s.isAccepted],
    [o.versions.mqtt5.code ?? null, s.code],
  ],
  'mqtt-3.1.1': (o, s) => [[o.versions.mqtt311.isAccepted, s.isAccepted]],
  'round-trip': (o, s) => [[isAlike(o.roundTrip.p50Ms, s.p50Ms), true]],
  requests: (o, s) => [[isAlike(o.requests.p50Ms, s.p50Ms), true]],
  'small-packets': (o, s) => [
    [isSlow(o.secondPacketMs), s.isDelayed],
    // With quick acknowledgements there is no delay, so Nagle's algorithm causes it.
    [true, s.isGoneWithQuickAck],
  ],
  'qos-1': (o, s) => [[o.deliveredQos.one, s.delivered]],
  'qos-2': (o, s) => [
    [o.qos2.packet ?? 'closed', s.packet],
    [o.deliveredQos.two ?? null, s.delivered],
  ],
  'no-subscriber': (o, s) => [[o.withoutSubscriber.code, s.code]],
  'packet-size': (o, s) => [
    [o.connack.maximumPacketSize ?? null, s.announced],
    [o.largePublish.packet === 'puback', s.isAccepted],
  ],
  'own-packet-size': (o, s) => [
    [o.ownPacketLimit.hasArrived, s.hasArrived],
    [o.ownPacketLimit.isAlive, s.isAlive],
  ],
  'topic-alias': (o, s) => [
    [o.connack.topicAliasMaximum ?? 0, s.maximum],
    [o.topicAlias?.hasArrived, s.first],
    [o.topicAlias?.hasArrived, s.last],
  ],
  'message-expiry': (o, s) => [
    [o.messageExpiry.received < o.messageExpiry.sent, s.received < 100],
    [o.messageExpiry.isExpiredGone, s.isExpiredGone],
  ],
  'user-properties': (o, s) => [[o.userProperties.isKept && o.userProperties.isOrdered, s.isSame]],
  'topic-characters': (o, s) => [
    [o.topicCharacters.map(({ sent, received }) => [sent, received ?? null]), s.received],
  ],
  wildcards: (o, s) => [[o.wildcards.hasMatched, s.hasMatched]],
  'shared-subscriptions': (o, s) => [
    [o.connack.sharedSubscriptionAvailable === false, s.isAnnounced === 0],
    [o.shared.code ?? null, s.code],
    [o.shared.members[0] + o.shared.members[1], s.total ?? 0],
    // "treats $share/… as an ordinary topic"
    [o.shared.code !== undefined && o.shared.members.every(count => count === 0), s.isOrdinary ?? false],
  ],
  'subscription-identifiers': (o, s) => [[o.identifiers.returned, s.returned]],
  'overlapping-filters': (o, s) => [
    [o.overlapping.copies, s.copies],
    [o.overlapping.identifiers.toSorted(), s.identifiers],
  ],
  'no-local': (o, s) => [[o.noLocal.ownCopies, s.ownCopies]],
  retained: (o, s) => [
    [
      (({ hasArrived, hasFlag, hasWildcard, isRemoved }) => ({
        hasArrived,
        hasFlag,
        hasWildcard,
        isRemoved,
      }))(o.retained),
      s,
    ],
  ],
  'retain-as-published': (o, s) => [[o.retainAsPublished.flag, s.flag]],
  'retain-handling': (o, s) => [[{ new: 1, ...o.retainHandling }, s]],
  session: (o, s) => [
    [o.session.sessionPresent, s.sessionPresent],
    [o.session.hasQueued, s.hasQueued],
    // The interval is applied, not only announced.
    [o.protocolVersion === 5 ? true : null, s.isExpired],
  ],
  redelivery: (o, s) => [[o.session.redeliveredDup ?? null, s.dup]],
  'receive-maximum': (o, s) => [
    [o.receiveMaximum.before, s.before],
    [Math.max(o.receiveMaximum.before, o.receiveMaximum.after), s.most],
  ],
  'broker-window': (o, s) => [[o.connack.receiveMaximum ?? null, s.announced]],
  'keep-alive': (o, s) => [
    // Some brokers send the Keep Alive of the client back.
    [(o.connack.serverKeepAlive ?? 300) !== 300, (s.of300 ?? 300) !== 300 || (s.of37 ?? 37) !== 37],
  ],
  will: (o, s) => [[o.will.hasArrived, s.hasArrived]],
  'sys-topics': (o, s) => [
    [o.sysTopics.code, s.code],
    [o.sysTopics.topics > 0, s.topics.length > 0],
    // Topics appear and change while the broker runs.
    [Math.abs(o.sysTopics.topics - s.topics.length) <= 5, true],
    [o.brokerVersion !== undefined, s.topics.some(topic => topic.endsWith('/version'))],
  ],
}

async function doctor(broker, port) {
  const { username, password = '' } = broker.credentials ?? {}
  const env = {
    ...process.env,
    ...(username === undefined ? {} : { MQTT_USERNAME: username, MQTT_PASSWORD: password }),
  }
  const command = [join(ROOT, 'dist/esm/cli/nestjs-mqtt.js'), 'doctor', `mqtt://127.0.0.1:${port}`, '--json']
  const { stdout } = await run(process.execPath, command, { env, timeout: RUN_LIMIT_MS }).catch(
    error => error,
  )
  return JSON.parse(stdout)
}

async function secondOpinion({ port, credentials: { username, password } = {} }) {
  const file = join(ROOT, 'scripts/brokers/second_opinion.py')
  const args = [file, String(port), ...(username === undefined ? [] : [username, password])]
  const { stdout } = await run('/usr/bin/python3', args, { timeout: RUN_LIMIT_MS })
  return JSON.parse(stdout)
}

/** Differences between the two, by the id of the finding. */
function compare({ findings, observations }, { facts }) {
  return findings.map(({ id, level, title, text }) => {
    const second = facts[id]
    let differences = []
    if (COMPARED[id] === undefined || second === undefined) differences = ['not compared']
    else if (level === 'unknown') differences = ['the doctor has no result']
    else
      differences = COMPARED[id](observations, second)
        .filter(([one, other]) => !isDeepStrictEqual(one, other))
        .map(([one, other]) => `${JSON.stringify(one)} is ${JSON.stringify(other)}`)
    return { title, text, second: JSON.stringify(second), differences }
  })
}

const names = process.argv.slice(2)
let failures = 0
for (const { id, title, version, start } of BROKERS) {
  if (names.length > 0 && !names.includes(id)) continue
  const found = version()
  if (found === undefined) {
    console.log(`${title}: not installed`)
    continue
  }
  const broker = await start()
  const between = await forwarder(broker.port)
  try {
    const report = await doctor(broker, between.port)
    const second = await secondOpinion(broker)
    const { connections, ...traffic } = between.counted
    const rows = compare(report, second)
    rows.push({
      title: 'Traffic',
      text: JSON.stringify(report.traffic),
      second: JSON.stringify({ connections, ...traffic }),
      differences: isCounted(report.traffic, traffic) ? [] : ['the forwarder has other counts'],
    })
    console.log(`\n${title} ${found}`)
    for (const { title: name, text, second: other, differences } of rows) {
      failures += differences.length
      console.log(`  ${differences.length === 0 ? 'same ' : 'DIFFERS'} ${name}: ${text}\n          ${other}`)
      for (const difference of differences) console.log(`          ${difference}`)
    }
  } finally {
    between.stop()
    await broker.stop()
  }
}
console.log(failures === 0 ? '\nevery statement is confirmed' : `\n${failures} differences`)
process.exit(failures === 0 ? 0 : 1)
