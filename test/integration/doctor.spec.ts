import { afterEach, describe, expect, it } from 'vitest'
import { qos2 } from '../../src/cli/doctor/check-messages.js'
import { receiveMaximum } from '../../src/cli/doctor/check-sessions.js'
import { shared } from '../../src/cli/doctor/check-subscriptions.js'
import { Examination } from '../../src/cli/doctor/examination.js'
import { examine } from '../../src/cli/doctor/examine.js'
import { reportOf, textOf } from '../../src/cli/doctor/report.js'
import { Target } from '../../src/cli/doctor/target.js'
import { EmbeddedBroker } from '../../src/testing/index.js'
import { levelsOf, runDoctor } from '../support/doctor.js'
import { freePort } from '../support/free-port.js'
import { OddBroker, type Oddities } from '../support/odd-broker.js'

const stops: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const stop of stops.splice(0)) await stop()
})

async function oddBroker(oddities: Oddities = {}): Promise<OddBroker> {
  const broker = await OddBroker.start(oddities)
  stops.push(() => broker.stop())
  return broker
}

async function examinationOf(url: string, protocolVersion: 4 | 5, timeoutMs = 30_000): Promise<Examination> {
  const examination = new Examination(await Target.of({ url }), 'doctor', timeoutMs)
  examination.protocolVersion = protocolVersion
  // The brokers of this file respond at once.
  examination.quietMs = 60
  return examination
}

const JSON_KEYS = [
  'schemaVersion',
  'target',
  'exitCode',
  'durationMs',
  'isComplete',
  'protocolVersion',
  'brokerVersion',
  'findings',
  'observations',
  'traffic',
  'leftBehind',
  'error',
]

describe('nestjs-mqtt doctor', () => {
  it('examines a broker of MQTT 3.1.1, and leaves nothing on it', async () => {
    const broker = await EmbeddedBroker.start()
    stops.push(() => broker.stop())
    const { code, out, error } = await runDoctor([broker.url, '--json'])
    expect(error).toBe('')
    const report = JSON.parse(out)
    expect(Object.keys(report)).toEqual(JSON_KEYS)
    expect(report).toMatchObject({
      schemaVersion: 1,
      target: broker.url,
      exitCode: code,
      isComplete: true,
      protocolVersion: 4,
      leftBehind: [],
      error: null,
    })
    const levels = levelsOf(out)
    expect(levels).toMatchObject({
      'mqtt-5': 'note',
      'mqtt-3.1.1': 'ok',
      'qos-1': 'ok',
      'qos-2': 'ok',
      retained: 'ok',
      wildcards: 'ok',
      'shared-subscriptions': 'warning',
      session: 'note',
      will: 'ok',
    })
    expect(Object.values(levels)).not.toContain('unknown')
    expect(report.traffic.bytesOut).toBeLessThan(600_000)
    const own = broker.published.map(({ topic }) => topic)
    expect(own.filter(topic => !topic.startsWith('nestjs-mqtt/doctor/') && !topic.startsWith('$'))).toEqual(
      [],
    )
    const examination = await examinationOf(broker.url, 4)
    const left = await examination.using({}, async raw => {
      await raw.subscribe([{ topic: 'nestjs-mqtt/doctor/#', qos: 0 }], 1_000)
      return raw.take('publish', () => true, 50)
    })
    expect(left).toBeUndefined()
  })

  it.each(['at-once', 'after-an-acknowledgement'] as const)(
    'notices that a broker overruns the Receive Maximum %s',
    async overrun => {
      const broker = await oddBroker({ overrun })
      const { receiveMaximum: observed } = await receiveMaximum(await examinationOf(broker.url, 5))
      expect(observed).toMatchObject({ limit: 10, published: 120 })
      expect(observed?.before).toBe(overrun === 'at-once' ? 120 : 10)
      expect(observed?.after).toBeGreaterThan(100)
    },
  )

  it('notices that a broker keeps the Receive Maximum', async () => {
    const broker = await oddBroker()
    const { receiveMaximum: observed } = await receiveMaximum(await examinationOf(broker.url, 5))
    expect(observed).toEqual({ limit: 10, published: 120, before: 10, after: 10 })
  })

  it('notices that a broker acknowledges QoS 2 with PUBACK, or closes the connection', async () => {
    const puback = await oddBroker({ qos2: 'puback' })
    const observed = await qos2(await examinationOf(puback.url, 5), {})
    expect(observed.qos2).toEqual({ packet: 'puback', code: 0 })
    const closing = await oddBroker({ qos2: 'hang-up' })
    const { qos2: closed } = await qos2(await examinationOf(closing.url, 5), {})
    expect(closed).toEqual({ failure: 'the broker closed the connection' })
  })

  it('notices that a group receives copies in place of shares', async () => {
    const broker = await oddBroker({ sharesCopies: true })
    const observed = await shared(await examinationOf(broker.url, 5))
    expect(observed.shared).toEqual({ code: 1, published: 20, members: [20, 20] })
  })

  it('passes user name and password, and shows neither', async () => {
    const broker = await oddBroker({ connack: () => ({ reasonCode: 0x86, returnCode: 4 }) })
    const url = broker.url.replace('//', '//ada:hunter2@')
    const { code, out, error } = await runDoctor([url])
    expect(broker.connects[0]).toMatchObject({ username: 'ada', password: Buffer.from('hunter2') })
    expect({ code, out }).toEqual({ code: 2, out: '' })
    expect(error).toBe(
      `nestjs-mqtt: ${broker.url}: the broker refused the connection: 0x86 Bad User Name or Password; check MQTT_USERNAME and MQTT_PASSWORD, and what "ada" may do\n`,
    )
    const json = await runDoctor([url, '--json'], { MQTT_USERNAME: 'grace', MQTT_PASSWORD: 'swordfish' })
    expect(broker.connects[1]).toMatchObject({ username: 'grace', password: Buffer.from('swordfish') })
    expect(JSON.parse(json.out)).toMatchObject({ exitCode: 2, error: { kind: 'credentials' } })
    expect(json.out + error).not.toMatch(/hunter2|swordfish/)
  })

  it('passes the method and the data of an enhanced authentication on MQTT 5, and shows no data', async () => {
    const broker = await oddBroker({ connack: () => ({ reasonCode: 0x87, returnCode: 5 }) })
    const args = [broker.url, '--json', '--auth-method', 'TOKEN']
    const { code, out, error } = await runDoctor(args, { MQTT_AUTH_DATA: 'sesame' })
    expect(code).toBe(2)
    expect(broker.connects).not.toHaveLength(0)
    for (const { protocolVersion, properties } of broker.connects) {
      expect(protocolVersion).toBe(5)
      expect(properties).toMatchObject({
        authenticationMethod: 'TOKEN',
        authenticationData: Buffer.from('sesame'),
      })
    }
    expect(JSON.parse(out)).toMatchObject({ exitCode: 2 })
    expect(out + error).not.toContain('sesame')
  })

  it('needs the method if there is data of an authentication', async () => {
    const { code, error } = await runDoctor(['mqtt://localhost'], { MQTT_AUTH_DATA: 'sesame' })
    expect(code).toBe(1)
    expect(error).toContain('MQTT_AUTH_DATA is set, but the method is missing; pass it with --auth-method')
    expect(error).not.toContain('sesame')
  })

  it('says that nothing listens on the port', async () => {
    const port = await freePort()
    const { code, error } = await runDoctor([`mqtt://127.0.0.1:${port}`])
    expect(code).toBe(2)
    expect(error).toBe(
      `nestjs-mqtt: mqtt://127.0.0.1:${port}: connect ECONNREFUSED 127.0.0.1:${port}: nothing listens on that port; check that the broker runs, the port, and the address it listens on\n`,
    )
  })

  it('says that the peer is no MQTT broker', async () => {
    const broker = await oddBroker({ connack: () => 'hang-up' })
    const { code, error } = await runDoctor([broker.url])
    expect(code).toBe(2)
    expect(error).toContain(
      `${broker.url} does not respond like an MQTT broker: the broker closed the connection; check the port`,
    )
  })

  it('takes the version that a broker with only MQTT 3.1.1 accepts', async () => {
    const broker = await oddBroker({
      connack: ({ protocolVersion }) => (protocolVersion === 5 ? 'hang-up' : {}),
    })
    const examination = await examinationOf(broker.url, 5, 2_600)
    const { observations } = await examine(examination)
    expect(observations).toMatchObject({
      protocolVersion: 4,
      versions: { mqtt5: { isAccepted: false, hasHungUp: true }, mqtt311: { isAccepted: true } },
    })
  })

  it('ends at the time limit, and says which checks are missing', async () => {
    const broker = await oddBroker({ ignoresSubscribe: true })
    const examination = await examinationOf(broker.url, 5, 2_600)
    const examined = await examine(examination)
    expect(examined.isComplete).toBe(false)
    expect(examined.observations.failures).toMatchObject({ will: 'no time was left' })
    const run = { target: broker.url, durationMs: 600, traffic: examination.traffic, leftBehind: [] }
    const report = reportOf(examined, run)
    expect(report.exitCode).toBe(4)
    expect(textOf(report)).toContain(
      'The time limit ended the run before all checks; raise it with --timeout.',
    )
    expect(textOf(report)).toMatch(/unknown {2}Will +not determined: no time was left/)
  })

  it('reports a check that fails as unknown, with the reason', async () => {
    const broker = await oddBroker({ garbage: true })
    const examination = await examinationOf(broker.url, 5, 5_000)
    const { observations } = await examine(examination)
    expect(observations.failures['qos1']).toMatch(/bytes that are not MQTT/)
  })

  it('reads no more than 16 MiB of a broker that floods it', async () => {
    const broker = await oddBroker({ floods: true })
    const examination = await examinationOf(broker.url, 5)
    const { raw } = await examination.open()
    expect(await raw.take('pingresp', () => true, 20_000)).toBeUndefined()
    expect(raw.whyEnded).toBe('the broker sent more than 16777216 bytes')
  })

  it.each([
    [[], 'the URL of the broker is missing; pass it, such as mqtt://localhost:1883, or set MQTT_URL'],
    [['mqtt://localhost', '--timeout', '1'], '--timeout must be 5 to 600 seconds, but is "1"'],
    [
      ['mqtt://localhost', '--prefix', 'a/+'],
      '--prefix must be a topic without wildcards, "$" at its start and "/" at its end, but is "a/+"',
    ],
  ])('says what is wrong with the arguments %j', async (args, message) => {
    expect(await runDoctor(args)).toEqual({ code: 1, out: '', error: `nestjs-mqtt: ${message}\n` })
  })

  it('says what is wrong with the URL without its password', async () => {
    const { code, error } = await runDoctor(['http://ada:hunter2@localhost'])
    expect(code).toBe(1)
    expect(error).toContain('"url" must be a URL with a host, such as "mqtt://localhost:1883"')
    expect(error).not.toContain('hunter2')
  })

  it.each([
    [
      ['--password', 'hunter2'],
      'unknown option "--password"; others can read the arguments of a process; set MQTT_PASSWORD',
    ],
    [['--password=hunter2'], 'unknown option "--password"; others can read'],
    [['-u', 'ada', '-P', 'hunter2'], 'unknown option "-u"; use --username'],
    [['-Phunter2'], 'unknown option "-P"; others can read'],
    [['--insecure'], 'unknown option "--insecure"; certificates are always verified; pass'],
    [['-h', 'localhost'], 'unknown option "-h"; pass the address as a URL, such as mqtt://localhost:1883'],
  ])('says what to use in place of %j, an option of other MQTT commands', async (args, message) => {
    const { code, error } = await runDoctor(['mqtt://localhost', ...args])
    expect(code).toBe(1)
    expect(error).toContain(`nestjs-mqtt: ${message}`)
    expect(error).not.toContain('hunter2')
  })
})
