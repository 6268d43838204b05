import { describe, expect, it } from 'vitest'
import { TopicAliases } from '../../../../src/core/protocol/write-batch.js'
import { SeededRandom } from '../../../support/seeded-random.js'

const topic = (index: number) => `device/${index}`

/** What a broker makes of the aliases that it hears of. */
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
  it('gives none where the broker takes none', () => {
    const aliases = new TopicAliases(0)
    expect(aliases.assign(topic(1))).toBeUndefined()
    expect(aliases.assign(topic(1))).toBeUndefined()
  })

  it('is new at first, and known from then on', () => {
    const aliases = new TopicAliases(10)
    expect(aliases.assign(topic(1))).toEqual({ alias: 1, isNew: true })
    expect(aliases.assign(topic(1))).toEqual({ alias: 1, isNew: false })
    expect(aliases.assign(topic(2))).toEqual({ alias: 2, isNew: true })
    expect(aliases.assign(topic(1))).toEqual({ alias: 1, isNew: false })
    expect(aliases.assign(topic(2))).toEqual({ alias: 2, isNew: false })
  })

  it('gives none to a topic that is not longer than the property', () => {
    const aliases = new TopicAliases(10)
    expect(aliases.assign('')).toBeUndefined()
    expect(aliases.assign('12345')).toBeUndefined()
    expect(aliases.assign('123456')).toEqual({ alias: 1, isNew: true })
  })

  it('takes the alias of the topic that was not used for the longest time', () => {
    const aliases = new TopicAliases(3)
    for (const index of [1, 2, 3, 1, 1, 3]) aliases.assign(topic(index))
    expect(aliases.assign(topic(4))).toEqual({ alias: 2, isNew: true })
    expect(aliases.assign(topic(1))).toEqual({ alias: 1, isNew: false })
    expect(aliases.assign(topic(2))).toEqual({ alias: 3, isNew: true })
    expect(aliases.assign(topic(3))).toEqual({ alias: 2, isNew: true })
  })

  it('counts the use of the topic that was used last as well', () => {
    const aliases = new TopicAliases(2)
    for (const index of [1, 2, 1, 1, 2, 2, 1]) aliases.assign(topic(index))
    expect(aliases.assign(topic(3))).toEqual({ alias: 2, isNew: true })
  })

  it('with one alias gives it to each topic in turn', () => {
    const aliases = new TopicAliases(1)
    expect(aliases.assign(topic(1))).toEqual({ alias: 1, isNew: true })
    expect(aliases.assign(topic(2))).toEqual({ alias: 1, isNew: true })
    expect(aliases.assign(topic(2))).toEqual({ alias: 1, isNew: false })
    expect(aliases.assign(topic(1))).toEqual({ alias: 1, isNew: true })
  })

  it.each([1, 2, 7, 50])('with up to %i never goes above, and never misleads the broker', maximum => {
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
  })
})
