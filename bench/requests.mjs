// The child's side of child.mjs: each input line of JSON is a request, each output line of JSON is its response.
import { createInterface } from 'node:readline'

export const config = JSON.parse(process.argv[2])

export const say = message => process.stdout.write(`${JSON.stringify(message)}\n`)

/** Responds to each request, in order. The process ends with its parent. */
export function respondToRequests(respond) {
  const lines = createInterface({ input: process.stdin })
  lines.on('line', async line => say(await respond(JSON.parse(line))))
  lines.once('close', () => process.exit())
}

/** The same clock in every process of the machine, with a higher resolution than Date.now(). */
export const nowMs = () => performance.timeOrigin + performance.now()
