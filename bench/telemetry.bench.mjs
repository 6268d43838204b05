// What do traces and metrics cost a publish? On a peer that only acknowledges, where the client is the limit.
import { Child } from './child.mjs'
import { separate } from './owned.mjs'
import { rowOfLives } from './telemetry/lives.mjs'

export const title = 'Traces and metrics: publishing'

const PER_TURN = 100
const QUESTIONS = [
  { qos: 0, messages: 100_000 },
  { qos: 1, messages: 30_000 },
]
const here = file => new URL(`./publish/${file}`, import.meta.url)

export async function* rows({ rounds, share }) {
  const { child: peer, first } = await Child.start(process.execPath, here('acknowledging_peer.mjs'), {})
  const config = { subject: 'ours', port: first.port, protocolVersion: 5 }
  for (const { qos, messages } of QUESTIONS)
    yield await rowOfLives(`publish at QoS ${qos}`, { messages: messages * share, rounds }, async () => {
      const { child } = await Child.start(process.execPath, here('publisher.mjs'), config)
      separate([child.pid], [peer.pid])
      return {
        record: mode => child.ask({ mode }),
        ask: count => child.ask({ qos, perTurn: PER_TURN, messages: Math.round(count) }),
        end: () => child.end(),
      }
    })
  await peer.end()
}
