import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { docBlocks } from '../../scripts/doc-blocks.mjs'
import { MqttClient } from '../../src/client/index.js'
import { eventually } from '../support/eventually.js'
import type { Program } from '../support/lone-package.js'
import { Mosquitto } from '../support/mosquitto.js'
import { DocApp } from './doc-app.js'

const PAGE = 'docs/scaling.md'
const page = new DocApp(PAGE)
const METERS = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h']
const PER_ROUND = 12

describe('the partitions of docs/scaling.md', () => {
  let broker: Mosquitto
  let devices: MqttClient
  let running: Program[]
  let published: number

  beforeAll(async () => {
    page.write()
    await page.compile()
  }, 60_000)
  beforeEach(async () => {
    broker = await Mosquitto.start()
    devices = await MqttClient.connect({ url: broker.url })
    running = []
    published = 0
  })
  afterEach(async () => {
    await Promise.all(running.map(program => program.kill()))
    await devices.close()
    await broker.stop()
  })

  async function start(ordinal: number, replicas: number): Promise<Program> {
    const env = { MQTT_URL: broker.url, POD_NAME: `meters-${ordinal}`, REPLICAS: String(replicas) }
    const program = page.program('dist/src/main.js', env)
    running.push(program)
    await program.printed('ready')
    return program
  }

  /** Every meter publishes its next numbers. Resolves when the broker has acknowledged all of them. */
  async function publishRound(): Promise<void> {
    const { partitionOf } = await import(page.compiled('src/partitions.ts'))
    const first = published
    published += PER_ROUND
    for (let number = first; number < published; number += 1) {
      const outcomes = METERS.map(meter => {
        const topic = `partitions/${partitionOf(meter)}/meters/${meter}/reading`
        return devices.publish(topic, { kWh: number }, { qos: 1 })
      })
      for (const outcome of await Promise.all(outcomes))
        expect(outcome).toMatchObject({ status: 'acknowledged', reasonCode: 0 })
    }
  }

  /** What the processes have handled, per meter, over all of their lives. */
  function handled(): Map<string, { readonly pods: Set<string>; readonly numbers: number[] }> {
    const lines = running.flatMap(({ output }) => output.split('\n'))
    const meters = new Map(METERS.map(meter => [meter, { pods: new Set<string>(), numbers: [] as number[] }]))
    for (const line of lines) {
      const [, pod, meter, number] = /^(meters-\d): (\w) (\d+)$/.exec(line) ?? []
      if (pod === undefined || meter === undefined) continue
      meters.get(meter)?.pods.add(pod)
      meters.get(meter)?.numbers.push(Number(number))
    }
    return meters
  }

  const haveAllHandled = () =>
    [...handled().values()].every(({ numbers }) => new Set(numbers).size === published)

  /** A repeat may follow a kill. Every number must come for the first time after the one before it. */
  const firsts = (numbers: readonly number[]) => [...new Set(numbers)]

  it('keep the order of each device while a process is killed and starts again', {
    timeout: 30_000,
  }, async () => {
    const [killed] = await Promise.all([start(0, 2), start(1, 2)])
    await publishRound()
    const during = publishRound()
    await killed.kill()
    await during
    await start(0, 2)
    await publishRound()
    await eventually(haveAllHandled)
    const inOrder = Array.from({ length: published }, (_, number) => number)
    for (const { numbers, pods } of handled().values()) {
      expect(firsts(numbers)).toEqual(inOrder)
      expect(pods.size).toBe(1)
    }
    expect(new Set([...handled().values()].flatMap(({ pods }) => [...pods])).size).toBe(2)
  })

  it('move to other processes in order, and nothing is lost, when one process is replaced by two', {
    timeout: 30_000,
  }, async () => {
    const old = await start(0, 1)
    await publishRound()
    await old.terminate()
    await publishRound()
    await Promise.all([start(0, 2), start(1, 2)])
    await publishRound()
    await eventually(haveAllHandled)
    const inOrder = Array.from({ length: published }, (_, number) => number)
    for (const { numbers } of handled().values()) expect(numbers).toEqual(inOrder)
  })
})

describe('the YAML files of docs/scaling.md', () => {
  const file = fileURLToPath(new URL(`../../${PAGE}`, import.meta.url))
  const blocks = docBlocks(file).filter(({ language }) => language === 'yaml')
  const named = (name: string) => {
    const block = blocks.find(({ code }) => code.startsWith(`# ${name}\n`))
    if (block === undefined) throw new Error(`${PAGE} has no ${name}`)
    return parse(block.code, { merge: true })
  }

  it('give a replica of the StatefulSet the name that its Client Identifier uses, and time to drain', () => {
    const { kind, metadata, spec } = named('statefulset.yaml')
    const pod = spec.template.spec
    expect(kind).toBe('StatefulSet')
    expect(spec.serviceName).toBe(metadata.name)
    expect(spec.selector.matchLabels).toEqual(spec.template.metadata.labels)
    expect(pod.containers[0].env).toContainEqual({
      name: 'POD_NAME',
      valueFrom: { fieldRef: { fieldPath: 'metadata.name' } },
    })
    expect(pod.terminationGracePeriodSeconds * 1_000).toBeGreaterThan(5_000)
  })

  it('describe a cluster of three nodes that know each other by name', () => {
    const services: Record<string, ComposeService> = named('compose.yaml').services
    const nodes = Object.entries(services)
    expect(nodes).toHaveLength(3)
    const names = nodes.map(([name]) => `emqx@${name}.mqtt.local`)
    for (const [name, { image, environment, networks }] of nodes) {
      expect(networks.mqtt.aliases).toEqual([`${name}.mqtt.local`])
      expect(environment.EMQX_NODE_NAME).toBe(`emqx@${name}.mqtt.local`)
      expect(image).toBe('emqx/emqx:5.8.8')
      expect(environment.EMQX_CLUSTER__DISCOVERY_STRATEGY).toBe('static')
      expect(environment.EMQX_CLUSTER__STATIC__SEEDS).toBe(`[${names.join(',')}]`)
    }
    expect(new Set(nodes.map(([, { environment }]) => environment.EMQX_NODE__COOKIE)).size).toBe(1)
    const ports = nodes.flatMap(([, service]) => service.ports.map(port => port.split(':')[0]))
    expect(new Set(ports).size).toBe(3)
    const text = readFileSync(file, 'utf8')
    for (const port of ports) expect(text).toContain(`'mqtt://localhost:${port}'`)
  })
})

interface ComposeService {
  readonly image: string
  readonly environment: {
    readonly EMQX_NODE_NAME: string
    readonly EMQX_NODE__COOKIE: string
    readonly EMQX_CLUSTER__DISCOVERY_STRATEGY: string
    readonly EMQX_CLUSTER__STATIC__SEEDS: string
  }
  readonly networks: { readonly mqtt: { readonly aliases: readonly string[] } }
  readonly ports: readonly string[]
}
