// The handlers of every subject: one method of one controller, which counts, for all the patterns.
import 'reflect-metadata'
import { Controller } from '@nestjs/common'
import { Ctx, EventPattern, MessagePattern, Payload } from '@nestjs/microservices'

const DEVICES = 64

export const PAYLOAD = Buffer.from('{"t":21.5,"n":1}')

/**
 * Each subject has its own patterns, because all subjects are connected at the same time. The patterns do not overlap, and
 * the messages match the last one registered.
 */
export const patternsOf = (subject, count) =>
  Array.from({ length: count }, (_, index) => `${subject}/${index}/+/state`)

/** Topics of many devices, because messages of one topic may be handled one after the other. */
export const topicsOf = (subject, count) =>
  Array.from({ length: DEVICES }, (_, device) => `${subject}/${count - 1}/${device}/state`)

/**
 * @param kind 'event' or 'message'; the handler of a message returns nothing, because no response is requested. It has the
 * default options, so it subscribes at QoS 0.
 */
export function controllerOf(kind, patterns, take) {
  class Devices {
    state({ n }) {
      take(n)
    }
  }
  const { prototype } = Devices
  const method = Object.getOwnPropertyDescriptor(prototype, 'state')
  const pattern = kind === 'event' ? EventPattern : MessagePattern
  Payload()(prototype, 'state', 0)
  Ctx()(prototype, 'state', 1)
  pattern(patterns, kind === 'event' ? { qos: 1 } : {})(prototype, 'state', method)
  Controller()(Devices)
  return Devices
}
