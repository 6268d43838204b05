// npm run walk: the functions and files of this package that one message runs through, counted by the engine.
// It prints them with --list. Budget: at most 50 functions in at most 15 files for each direction.
import 'reflect-metadata'
import { Session } from 'node:inspector/promises'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { Controller, Module } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { EventPattern, Payload } from '@nestjs/microservices'
import { handle, MqttModule, MqttService } from 'nestjs-mqtt'
import { ScriptedPeer } from 'nestjs-mqtt/testing'

const MAX_FUNCTIONS = 50
const MAX_FILES = 15
const WARM_UP = 300
const ROUNDS = 9
const DIST = new URL('../dist/', import.meta.url).href

class Telemetry {
  onReading() {}
}
Controller()(Telemetry)
Payload()(Telemetry.prototype, 'onReading', 0)
EventPattern('devices/+deviceId/telemetry', handle({ qos: 1 }))(
  Telemetry.prototype,
  'onReading',
  Object.getOwnPropertyDescriptor(Telemetry.prototype, 'onReading'),
)

async function walk(protocolVersion) {
  const peer = new ScriptedPeer()
  class AppModule {}
  Module({
    imports: [MqttModule.forRoot({ createStream: peer.createStream, protocolVersion, keepalive: 0 })],
    controllers: [Telemetry],
  })(AppModule)
  const app = await NestFactory.createMicroservice(AppModule, {
    ...MqttModule.microservice(),
    logger: ['error'],
  })
  const listening = app.listen()
  const connection = await peer.accept()
  await connection.grant()
  await listening
  const mqtt = app.get(MqttService)
  const inspector = new Session()
  inspector.connect()
  await inspector.post('Profiler.enable')
  await inspector.post('Profiler.startPreciseCoverage', { callCount: true, detailed: false })

  let messageId = 0
  const receive = async () => {
    messageId = (messageId % 1_000) + 1
    connection.send({
      cmd: 'publish',
      topic: 'devices/7/telemetry',
      payload: Buffer.from('{"temperature":21}'),
      qos: 1,
      messageId,
      dup: false,
      retain: false,
    })
    await connection.find('puback')
  }
  const publish = async () => {
    const outcome = mqtt.publish('devices/7/config', { rate: 5 }, { qos: 1 })
    const packet = await connection.find('publish')
    connection.send({ cmd: 'puback', messageId: packet.messageId, reasonCode: 0 })
    await outcome
  }
  const rows = []
  for (const [name, once] of [
    ['in', receive],
    ['out', publish],
  ]) {
    for (let count = 0; count < WARM_UP; count += 1) await once()
    const rounds = []
    for (let round = 0; round < ROUNDS; round += 1) {
      // What the message before left for the next turns is not a part of this one.
      for (let turn = 0; turn < 20; turn += 1) await nextTurn()
      await inspector.post('Profiler.takePreciseCoverage')
      await once()
      await nextTurn()
      const { result } = await inspector.post('Profiler.takePreciseCoverage')
      rounds.push(ownFunctions(result))
    }
    rounds.sort((a, b) => a.length - b.length)
    rows.push({
      name: `QoS 1 ${name}, MQTT ${protocolVersion === 5 ? '5' : '3.1.1'}`,
      functions: rounds[ROUNDS >> 1],
    })
  }
  await inspector.post('Profiler.stopPreciseCoverage')
  inspector.disconnect()
  const closing = app.close()
  connection.cut()
  await closing
  return rows
}

function ownFunctions(scripts) {
  return scripts
    .filter(({ url }) => url.startsWith(DIST) && !url.startsWith(`${DIST}testing/`))
    .flatMap(({ url, functions }) =>
      functions
        .filter(({ ranges: [range] }) => range.count > 0)
        .map(({ functionName, ranges: [range] }) => ({
          file: url.slice(DIST.length),
          name: functionName || '(anonymous)',
          calls: range.count,
        })),
    )
}

// The peer lives in this process, and nothing else keeps it alive.
const alive = setInterval(() => {}, 60_000)
const isListed = process.argv.includes('--list')
let isOver = false
for (const version of [5, 4]) {
  for (const { name, functions } of await walk(version)) {
    const files = new Set(functions.map(({ file }) => file))
    const isWithin = functions.length <= MAX_FUNCTIONS && files.size <= MAX_FILES
    isOver ||= !isWithin
    console.log(
      `${name}: ${functions.length} functions in ${files.size} files ${isWithin ? 'ok' : 'OVER BUDGET'}`,
    )
    if (isListed) for (const { file, name: fn, calls } of functions) console.log(`  ${file} ${fn} x${calls}`)
  }
}
console.log(`budget: ${MAX_FUNCTIONS} functions in ${MAX_FILES} files`)
clearInterval(alive)
process.exitCode = isOver ? 1 : 0
