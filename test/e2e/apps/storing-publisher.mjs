// Publishes numbered messages with whenBlocked: 'store' until it is killed; or, to drain, sends what is stored and ends.
import { writeSync } from 'node:fs'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { MqttClient } from 'nestjs-mqtt/client'
import { sqliteStore } from 'nestjs-mqtt/store'

const { url, file, first, topics, clean, storeAfterMs, mostOpen } = JSON.parse(process.argv[2])
/** Synchronous, so that a line is not lost with the process. */
function say(line) {
  for (;;) {
    try {
      return writeSync(1, `${line}\n`)
    } catch (error) {
      // The reader of the pipe is behind.
      if (error.code !== 'EAGAIN') throw error
    }
  }
}

const client = await MqttClient.connect({
  url,
  clientId: 'storing-publisher',
  clean,
  connect: 'background',
  reconnect: { delayMs: [5], resetAfterMs: 0 },
  store: sqliteStore(file),
  storeAfterMs,
})
say('started')

if (first === undefined) {
  while (client.stats().store.messages > 0) await nextTurn()
  await client.close()
  say('drained')
} else {
  let open = 0
  for (let number = first; ; number += 1) {
    while (open >= mostOpen) await nextTurn()
    open += 1
    client
      .publish(`kills/${number % topics}`, number, { qos: 1 + (number % 2), whenBlocked: 'store' })
      .then(({ status, reason }) => say(`${number} ${reason ?? status}`))
      .finally(() => {
        open -= 1
      })
    if (number % 10 === 0) await nextTurn()
  }
}
