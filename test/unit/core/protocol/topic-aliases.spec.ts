import { describe, expect, it } from 'vitest'
import { TopicAliases } from '../../../../src/core/protocol/write-batch.js'
import { SeededRandom } from '../../../support/seeded-random.js'

const topic = (index: number) => `device/${index}`

/** The aliases as the broker resolves them. */
class BrokerSide {
  private readonly topics = new Map<number, string>()

  /** The topic that the broker takes the PUBLISH for; undefined where it would end the connection. */
  hear(name: string, given: { alias: number; isNew: boolean } | undefined): string | undefined {
    if (given === undefined) return name
    if (given.isNew) this.topics.set(given.alias, name)
    return this.topics.get(given.alias)
  }
}

describe('TopicAliases', () => {
  it('assigns none if the broker accepts none', () => {
    const aliases = new TopicAliases(0)
    expect(aliases.assign(topic(1))).toBeUndefined()
    expect(aliases.assign(topic(1))).toBeUndefined()
  })

  it('are new at first, and known afterwards', () => {
    const aliases = new TopicAliases(10)
    expect(aliases.assign(topic(1))).toEqual({ alias: 1, isNew: true })
    expect(aliases.assign(topic(1))).toEqual({ alias: 1, isNew: false })
    expect(aliases.assign(topic(2))).toEqual({ alias: 2, isNew: true })
    expect(aliases.assign(topic(1))).toEqual({ alias: 1, isNew: false })
    expect(aliases.assign(topic(2))).toEqual({ alias: 2, isNew: false })
  })

  it('assigns none to a topic that is not longer than the property', () => {
    const aliases = new TopicAliases(10)
    expect(aliases.assign('')).toBeUndefined()
    expect(aliases.assign('12345')).toBeUndefined()
    expect(aliases.assign('123456')).toEqual({ alias: 1, isNew: true })
  })

  it('reuses the alias of the least recently used topic', () => {
    const aliases = new TopicAliases(3)
    for (const index of [1, 2, 3, 1, 1, 3]) aliases.assign(topic(index))
    expect(aliases.assign(topic(4))).toEqual({ alias: 2, isNew: true })
    expect(aliases.assign(topic(1))).toEqual({ alias: 1, isNew: false })
    expect(aliases.assign(topic(2))).toEqual({ alias: 3, isNew: true })
    expect(aliases.assign(topic(3))).toEqual({ alias: 2, isNew: true })
  })

  it('also counts a use of the most recently used topic', () => {
    const aliases = new TopicAliases(2)
    for (const index of [1, 2, 1, 1, 2, 2, 1]) aliases.assign(topic(index))
    expect(aliases.assign(topic(3))).toEqual({ alias: 2, isNew: true })
  })

  it('assigns a single alias to each topic in turn', () => {
    const aliases = new TopicAliases(1)
    expect(aliases.assign(topic(1))).toEqual({ alias: 1, isNew: true })
    expect(aliases.assign(topic(2))).toEqual({ alias: 1, isNew: true })
    expect(aliases.assign(topic(2))).toEqual({ alias: 1, isNew: false })
    expect(aliases.assign(topic(1))).toEqual({ alias: 1, isNew: true })
  })

  it.each([1, 2, 7, 50])(
    'with up to %i stays within the limit, and is always consistent with the broker',
    maximum => {
      const random = new SeededRandom(maximum)
      const aliases = new TopicAliases(maximum)
      const broker = new BrokerSide()
      let recent: string[] = []
      for (let step = 0; step < 5_000; step += 1) {
        const name = topic(random.below(random.chance(0.5) ? maximum : 2 * maximum + 1))
        const given = aliases.assign(name)
        expect(broker.hear(name, given)).toBe(name)
        expect(given?.alias).toBeGreaterThanOrEqual(1)
        expect(given?.alias).toBeLessThanOrEqual(maximum)
        // Known are those that were used last, and no others.
        expect(given?.isNew).toBe(!recent.slice(-maximum).includes(name))
        recent = [...recent.filter(other => other !== name), name]
      }
    },
  )
})
