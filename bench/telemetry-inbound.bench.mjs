// What do traces and metrics cost a message that a Nest handler receives? On a peer that only publishes, where the client is
// the limit.
import { Child } from './child.mjs'
import { BATCH } from './inbound/plan.mjs'
import { separate } from './owned.mjs'
import { rowOfLives } from './telemetry/lives.mjs'

export const title = 'Traces and metrics: receiving'

const subject = 'ours'
const count = 1
const MESSAGES = 100 * BATCH
const here = file => new URL(`./inbound/${file}`, import.meta.url)

export async function* rows({ rounds, share }) {
  const { child: peer, first } = await Child.start(process.execPath, here('publishing_peer.mjs'), {})
  const config = { subject, port: first.port, protocolVersion: 5, kind: 'event', count }
  for (const qos of [0, 1])
    yield await rowOfLives(
      `message to a handler at QoS ${qos}`,
      { messages: MESSAGES * share, rounds },
      async () => {
        const receiver = await Child.start(process.execPath, here('receiver.mjs'), config)
        separate([receiver.child.pid], [peer.pid])
        return {
          record: mode => receiver.child.ask({ mode }),
          ask: async wanted => {
            const messages = BATCH * Math.round(wanted / BATCH)
            const received = receiver.child.ask({ messages })
            await peer.ask({ receiver: receiver.first.port, subject, count, qos, messages })
            return received
          },
          end: () => receiver.child.end(),
        }
      },
    )
  await peer.end()
}
