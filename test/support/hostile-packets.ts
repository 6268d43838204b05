import { generate, type Packet } from 'mqtt-packet'
import type { SeededRandom } from './seeded-random.js'

const TOPICS = ['a/1', 'a/2', 'b', '__proto__', 'a/', '$SYS/x'] as const
const PAYLOADS = ['1', '{"a":[1,2]}', '', '{', '{"__proto__":{"polluted":1}}', '\u0000'] as const

/** A packet as a broker may send it. */
function plausible(random: SeededRandom, version: 4 | 5): Packet {
  const messageId = 1 + random.below(20)
  const reasonCode = version === 5 && random.chance(0.3) ? random.below(256) : 0
  const kind = random.below(14)
  if (kind < 6) return publish(random, version, messageId)
  const answers = ['puback', 'pubrec', 'pubrel', 'pubcomp'] as const
  const answer = answers[kind - 6]
  if (answer !== undefined) return { cmd: answer, messageId, reasonCode }
  if (kind === 10) return { cmd: 'suback', messageId, granted: [random.below(3)] }
  if (kind === 11) return { cmd: 'unsuback', messageId, granted: [0] }
  if (kind === 12) return { cmd: 'connack', reasonCode: 0, returnCode: 0, sessionPresent: random.chance(0.5) }
  return random.chance(0.2) && version === 5 ? { cmd: 'disconnect', reasonCode } : { cmd: 'pingresp' }
}

function publish(random: SeededRandom, version: 4 | 5, messageId: number): Packet {
  const qos = random.pick([0, 1, 2])
  const properties = {
    contentType: 'application/json',
    userProperties: Object.fromEntries([
      ['__proto__', 'x'],
      ['k', ['1', '2']],
    ]),
    ...(random.chance(0.5) ? { responseTopic: 'r', correlationData: Buffer.from([1]) } : {}),
    ...(random.chance(0.3) ? { topicAlias: 1 + random.below(5) } : {}),
    ...(random.chance(0.3) ? { subscriptionIdentifier: 1 + random.below(300) } : {}),
  }
  return {
    cmd: 'publish',
    topic: random.pick(TOPICS),
    payload: random.pick(PAYLOADS),
    qos,
    dup: qos > 0 && random.chance(0.3),
    retain: random.chance(0.3),
    ...(qos > 0 ? { messageId } : {}),
    ...(version === 5 ? { properties } : {}),
  }
}

function mutateOnce(random: SeededRandom, bytes: Buffer): Buffer {
  const at = random.below(bytes.length)
  switch (random.below(6)) {
    case 0:
      return Buffer.from(bytes.map((byte, index) => (index === at ? byte ^ (1 << random.below(8)) : byte)))
    case 1:
      return Buffer.from(bytes.map((byte, index) => (index === at ? random.below(256) : byte)))
    case 2:
      return Buffer.concat([bytes.subarray(0, at), Buffer.from([random.below(256)]), bytes.subarray(at)])
    case 3:
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1)])
    case 4:
      return bytes.subarray(0, at)
    default:
      // The length, so that the packet is too short or too long for what it announces.
      return Buffer.from(bytes.map((byte, index) => (index === 1 ? random.below(256) : byte)))
  }
}

/** The bytes with one to three changes, or with none. */
export function mutated(random: SeededRandom, packet: Buffer): Buffer {
  let bytes = packet
  for (let count = random.below(4); count > 0 && bytes.length > 0; count -= 1)
    bytes = mutateOnce(random, bytes)
  return bytes
}

/** Bytes of a packet that was damaged in one to three places, or in none. */
export function hostilePacket(random: SeededRandom, version: 4 | 5): Buffer {
  return mutated(random, generate(plausible(random, version), { protocolVersion: version }))
}
