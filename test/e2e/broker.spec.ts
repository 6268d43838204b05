import 'reflect-metadata'
import { Controller, Inject } from '@nestjs/common'
import { EventPattern, Payload } from '@nestjs/microservices'
import { connectAsync } from 'mqtt'
import { describe, expect, it } from 'vitest'
import { MqttService } from '../../src/index.js'
import { CuttableLink } from '../support/cuttable-link.js'
import { eventually } from '../support/eventually.js'
import { freePort } from '../support/free-port.js'
import { Gate } from '../support/gate.js'
import { Mosquitto } from '../support/mosquitto.js'
import { startMicroservice } from '../support/nest-app.js'

const handled: string[] = []

@Controller()
class OverlapController {
  constructor(@Inject(MqttService) private readonly mqtt: MqttService) {}

  @EventPattern<string>('ov/+')
  plus(@Payload() value: string): void {
    handled.push(`+ ${value}`)
  }

  @EventPattern<string>('ov/#')
  hash(@Payload() value: string): void {
    handled.push(`# ${value}`)
  }

  @EventPattern<string>('ov/a')
  exact(@Payload() value: string): void {
    handled.push(`a ${value}`)
  }

  @EventPattern<string>('chain/first')
  async first(@Payload() value: string): Promise<void> {
    handled.push((await this.mqtt.publish('ov/b', value, { qos: 1 })).status)
  }

  @EventPattern<string>('$share/group/shared/+')
  shared(@Payload() value: string): void {
    handled.push(`shared ${value}`)
  }
}

@Controller()
class SecretController {
  @EventPattern<string>('open/#')
  open(): void {}

  @EventPattern<string>('secret/#')
  secret(): void {}
}

describe.each([5, 4] as const)('mosquitto on MQTT version %i', protocolVersion => {
  it('every matching handler runs exactly once, however many copies the broker sends for overlapping filters', async () => {
    handled.length = 0
    const broker = await Mosquitto.start()
    const { app, mqtt } = await startMicroservice(
      { url: broker.url, protocolVersion },
      { controllers: [OverlapController] },
    )
    await mqtt.publish('ov/a', '1', { qos: 1 })
    await mqtt.publish('shared/x', '2', { qos: 1 })
    await mqtt.publish('chain/first', '3', { qos: 1 })
    await eventually(() => handled.length === 7)
    await app.close()
    expect([...handled].sort()).toEqual(['# 1', '# 3', '+ 1', '+ 3', 'a 1', 'acknowledged', 'shared 2'])
    await broker.stop()
  })

  it('a keepalive of 1 s is kept while a handler runs for more than 4 s', { timeout: 30_000 }, async () => {
    const gate = new Gate()

    @Controller()
    class SlowController {
      @EventPattern<string>('slow')
      async slow(): Promise<void> {
        await gate.pass()
      }
    }

    const broker = await Mosquitto.start()
    const link = new CuttableLink(broker.port)
    const { app, mqtt, logger } = await startMicroservice(
      { createStream: link.createStream, protocolVersion, keepalive: 1 },
      { controllers: [SlowController] },
    )
    await mqtt.publish('slow', 1, { qos: 1 })
    await gate.reached()
    await link.pinged(5)
    expect(mqtt.stats().inbound.running).toBe(1)
    gate.open()
    await eventually(() => mqtt.stats().inbound.handled === 1)
    expect(mqtt.state.status).toBe('connected')
    await app.close()
    expect(logger.ofMqtt.filter(line => line.includes('connection lost'))).toEqual([])
    await broker.stop()
  })

  it('a broker that is not available: fail-fast rejects with host, port and cause', async () => {
    const port = await freePort()
    await expect(
      startMicroservice({ url: `mqtt://127.0.0.1:${port}`, protocolVersion }, { controllers: [] }),
    ).rejects.toThrow(`could not connect to mqtt://127.0.0.1:${port}: connect ECONNREFUSED 127.0.0.1:${port}`)
  })

  it('a broker that is not available: background starts, and connects once it is', async () => {
    const broker = await Mosquitto.start()
    await broker.down()
    handled.length = 0
    const { app, mqtt } = await startMicroservice(
      { url: broker.url, protocolVersion, connect: 'background', reconnect: { delayMs: [5] } },
      { controllers: [OverlapController] },
    )
    await broker.up()
    await mqtt.whenConnected()
    await eventually(() => mqtt.stats().subscriptions.granted === 5)
    await mqtt.publish('shared/x', '1', { qos: 1 })
    await eventually(() => handled.length === 1)
    await app.close()
    await broker.stop()
  })

  it('the error of a start names a subscription that the access rules refuse', async () => {
    const broker = await Mosquitto.start({ denySubscribe: 'secret/#' })
    await expect(
      startMicroservice({ url: broker.url, protocolVersion }, { controllers: [SecretController] }),
    ).rejects.toMatchObject({ code: 'SUBSCRIBE_REFUSED', message: expect.stringContaining('"secret/#"') })
    await broker.stop()
  })

  it('the log of a restart has one line per change of state, with cause and next delay, and no secret', async () => {
    const broker = await Mosquitto.start()
    const { app, mqtt, logger } = await startMicroservice(
      {
        url: broker.url.replace('//', '//someone:hunter2@'),
        username: 'someone',
        password: 'hunter2',
        protocolVersion,
        reconnect: { delayMs: [20] },
      },
      { controllers: [OverlapController] },
    )
    await broker.down()
    await eventually(() => mqtt.state.status === 'waiting')
    await broker.up()
    await mqtt.whenConnected()
    await app.close()
    const name = protocolVersion === 5 ? 'MQTT 5' : 'MQTT 3.1.1'
    const lines = logger.ofMqtt.filter(line => !line.includes('Shared Subscriptions'))
    expect(lines[0]).toBe(`log [Mqtt] connected to ${broker.url} with ${name}, new session`)
    expect(lines[1]).toBe(
      'warn [Mqtt] connection lost: the broker or the network closed the connection; next attempt in 20 ms',
    )
    for (const line of lines.slice(2, -2)) {
      expect(line).toMatch(
        /^warn \[Mqtt\] attempt \d+ failed: could not connect to .*: connect ECONNREFUSED .*; next attempt in 20 ms$/,
      )
    }
    expect(lines.at(-2)).toMatch(/^log \[Mqtt\] connected to .*(?: at attempt \d+)?, new session$/)
    expect(lines.at(-1)).toBe(`log [Mqtt] connection to ${broker.url} closed`)
    expect(lines.join('\n')).not.toContain('hunter2')
    await broker.stop()
  })
})

it('auto uses MQTT 5 with mosquitto', async () => {
  const broker = await Mosquitto.start()
  const { app, mqtt } = await startMicroservice({ url: broker.url }, {})
  expect(mqtt.state).toMatchObject({ session: { protocolVersion: 5, limits: { receiveMaximum: 20 } } })
  await app.close()
  await broker.stop()
})

it('the broker sends the will if the process is killed, and not if the client closes', async () => {
  const broker = await Mosquitto.start()
  const watcher = await connectAsync(broker.url)
  const wills: string[] = []
  watcher.on('message', (_topic, payload) => wills.push(payload.toString()))
  await watcher.subscribeAsync('status', { qos: 1 })
  const link = new CuttableLink(broker.port)
  const will = { topic: 'status', payload: Buffer.from('gone'), qos: 1 as const, retain: false }
  const { app } = await startMicroservice(
    { createStream: link.createStream, will, reconnect: { delayMs: [1] } },
    {},
  )
  link.cut()
  await eventually(() => wills.length === 1)
  await app.get(MqttService).whenConnected()
  await app.close()
  await watcher.publishAsync('status', 'last', { qos: 1 })
  await eventually(() => wills.length === 2)
  expect(wills).toEqual(['gone', 'last'])
  await watcher.endAsync()
  await broker.stop()
})
