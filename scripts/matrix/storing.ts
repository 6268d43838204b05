// Publishes texts with whenBlocked: 'store', and prints the outcomes, or waits until the store is empty.
//   node storing.js <file> <text> …   ends like kill -9
//   node storing.js <file>
import { setTimeout as sleep } from 'node:timers/promises'
import { Module } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { MqttModule, MqttService } from 'nestjs-mqtt'
import { sqliteStore } from 'nestjs-mqtt/store'

const [file = '', ...texts] = process.argv.slice(2)

@Module({
  imports: [
    MqttModule.forRoot({
      url: process.env.MQTT_URL ?? 'mqtt://localhost:1883',
      connect: 'background',
      reconnect: { delayMs: [100] },
      store: sqliteStore(file),
    }),
  ],
})
class StoringModule {}

async function main(): Promise<void> {
  const app = await NestFactory.createApplicationContext(StoringModule, { logger: ['error'] })
  const mqtt = app.get(MqttService)
  for (const text of texts) {
    const { status } = await mqtt.publish('alarms', text, { qos: 1, whenBlocked: 'store' })
    console.log(`${text} ${status}`)
  }
  if (texts.length > 0) process.kill(process.pid, 'SIGKILL')
  while (mqtt.stats().store?.messages !== 0) await sleep(20)
  console.log(`${mqtt.stats().store?.delivered} delivered`)
  await app.close()
}

void main()
