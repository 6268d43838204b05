// Memory of one idle connection: that of many connections in one process, divided by their number.
import { connectAsync } from 'mqtt'
import { MqttClient } from 'nestjs-mqtt/client'
import { memory } from '../memory.mjs'
import { config, say } from '../requests.mjs'

const CONNECTIONS = 1_000
const AT_ONCE = 50
const url = `mqtt://127.0.0.1:${config.port}`
const connect = {
  ours: () => MqttClient.connect({ url }),
  mqtt: () => connectAsync(url),
}[config.subject]

const total = ({ heapUsed, external }) => heapUsed + external
const kept = [await connect()]
const before = memory()
for (let at = 0; at < CONNECTIONS; at += AT_ONCE)
  kept.push(...(await Promise.all(Array.from({ length: AT_ONCE }, connect))))
const after = memory()
say({ kilobytes: (total(after) - total(before)) / CONNECTIONS / 1_000, connections: kept.length })
