import { describe, expect, it } from 'vitest'

/** Something that says whether a Topic Filter, as written in SUBSCRIBE, matches a Topic Name. */
export type TopicMatcher = (filter: string, topic: string) => boolean

interface Rule {
  /** A statement of MQTT 5, 4.7 or 4.8.2. */
  readonly rule: string
  readonly filter: string
  readonly matches: readonly string[]
  readonly refuses: readonly string[]
}

const LONGEST = 'a'.repeat(65_535)
const DEEPEST = `${'/'.repeat(65_534)}a`

const RULES: readonly Rule[] = [
  {
    rule: '4.7.1: a filter without wildcards matches the one topic that is equal to it',
    filter: 'sport/tennis/player1',
    matches: ['sport/tennis/player1'],
    refuses: [
      'sport/tennis',
      'sport/tennis/player1/ranking',
      'sport/tennis/player',
      'sport/tennis/player12',
      'sport',
    ],
  },
  {
    rule: '4.7.1.2: "#" matches the parent level and any number of levels below it',
    filter: 'sport/tennis/player1/#',
    matches: [
      'sport/tennis/player1',
      'sport/tennis/player1/ranking',
      'sport/tennis/player1/score/wimbledon',
      'sport/tennis/player1/',
      'sport/tennis/player1//',
    ],
    refuses: [
      'sport/tennis',
      'sport/tennis/player2',
      'sport/tennis/player12',
      'sport/tennis/player1x/ranking',
    ],
  },
  {
    rule: '4.7.1.2: "sport/#" also matches the singular "sport"',
    filter: 'sport/#',
    matches: ['sport', 'sport/', 'sport/tennis', 'sport/tennis/player1'],
    refuses: ['sports', 'Sport', '/sport'],
  },
  {
    rule: '4.7.1.2: "#" on its own matches every topic that does not begin with "$"',
    filter: '#',
    matches: ['a', 'a/b/c', '/', '/a', 'a/', '//', ' ', 'a/$b', '/$SYS'],
    refuses: ['$', '$SYS', '$SYS/uptime', '$share/g/a', '$/a'],
  },
  {
    rule: '4.7.1.2: "+/tennis/#" is valid',
    filter: '+/tennis/#',
    matches: ['sport/tennis', 'sport/tennis/a/b', '/tennis'],
    refuses: ['tennis', 'sport/table/tennis', 'sport', '$sport/tennis'],
  },
  {
    rule: '4.7.1.3: "+" matches exactly one level',
    filter: 'sport/tennis/+',
    matches: ['sport/tennis/player1', 'sport/tennis/player2'],
    refuses: ['sport/tennis/player1/ranking', 'sport/tennis', 'sport', 'sport/golf/player1'],
  },
  {
    rule: '4.7.1.3: "sport/+" does not match "sport" but it does match "sport/"',
    filter: 'sport/+',
    matches: ['sport/', 'sport/tennis'],
    refuses: ['sport', 'sport//', 'sport/tennis/'],
  },
  {
    rule: '4.7.1.3: "+" on its own matches every topic of one level',
    filter: '+',
    matches: ['a', 'finance', ' '],
    refuses: ['a/b', '/', '/finance', 'a/', '$SYS'],
  },
  {
    rule: '4.7.1.3: "+" may be used in more than one level',
    filter: '+/+/c/+',
    matches: ['a/b/c/d', '//c/', 'a//c/d'],
    refuses: ['a/b/c', 'a/b/d/d', 'a/b/c/d/e', '$a/b/c/d'],
  },
  {
    rule: '4.7.1.3: "sport/+/player1" is valid',
    filter: 'sport/+/player1',
    matches: ['sport/tennis/player1', 'sport//player1'],
    refuses: ['sport/player1', 'sport/a/b/player1', 'sport/tennis/player2'],
  },
  {
    rule: '4.7.1.3: "/finance" matches "+/+" and "/+", but not "+"',
    filter: '+/+',
    matches: ['/finance', 'a/b', '/', 'a/'],
    refuses: ['finance', '/finance/', '//a'],
  },
  {
    rule: '4.7.1.3: "/+" matches one level behind a leading "/"',
    filter: '/+',
    matches: ['/finance', '/', '/$SYS'],
    refuses: ['finance', 'a/finance', '/finance/a'],
  },
  {
    rule: '4.7.2: a filter that starts with "+" does not match topics that begin with "$"',
    filter: '+/monitor/Clients',
    matches: ['SYS/monitor/Clients', '/monitor/Clients'],
    refuses: ['$SYS/monitor/Clients', '$/monitor/Clients'],
  },
  {
    rule: '4.7.2: "$SYS/#" gets the topics that begin with "$SYS/"',
    filter: '$SYS/#',
    matches: ['$SYS', '$SYS/uptime', '$SYS/monitor/Clients'],
    refuses: ['SYS/uptime', '$sys/uptime', '$SYSTEM/uptime', '$'],
  },
  {
    rule: '4.7.2: "$SYS/monitor/+" gets "$SYS/monitor/Clients"',
    filter: '$SYS/monitor/+',
    matches: ['$SYS/monitor/Clients', '$SYS/monitor/'],
    refuses: ['$SYS/monitor', '$SYS/monitor/a/b', '$SYS/other/Clients'],
  },
  {
    rule: '4.7.2: "$" has a meaning at the beginning of a topic only',
    filter: 'a/+/#',
    matches: ['a/$SYS', 'a/$SYS/$b', 'a/b/$'],
    refuses: ['a', '$a/b'],
  },
  {
    rule: '4.7.3: topics are case sensitive',
    filter: 'ACCOUNTS/+',
    matches: ['ACCOUNTS/a'],
    refuses: ['Accounts/a', 'accounts/a'],
  },
  {
    rule: '4.7.3: topics may hold spaces, which are characters like others',
    filter: 'Accounts payable/ ',
    matches: ['Accounts payable/ '],
    refuses: ['Accountspayable/ ', 'Accounts payable/', 'Accounts payable'],
  },
  {
    rule: '4.7.3: a leading "/" makes another topic',
    filter: '/finance',
    matches: ['/finance'],
    refuses: ['finance', '//finance', '/finance/'],
  },
  {
    rule: '4.7.3: a trailing "/" makes another topic',
    filter: 'finance/',
    matches: ['finance/'],
    refuses: ['finance', 'finance//', '/finance/'],
  },
  {
    rule: '4.7.3: "/" alone is a topic of two empty levels',
    filter: '/',
    matches: ['/'],
    refuses: ['//', 'a', '/a', 'a/'],
  },
  {
    rule: '4.7.1.1: adjacent separators are a level of no characters',
    filter: 'a//b',
    matches: ['a//b'],
    refuses: ['a/b', 'a///b', 'a/ /b'],
  },
  {
    rule: '4.7.1.1: an empty level is a level, so "+" matches it',
    filter: 'a/+/b',
    matches: ['a//b', 'a/x/b'],
    refuses: ['a/b', 'a///b'],
  },
  {
    rule: '4.7.1.1: "#" matches any number of empty levels',
    filter: '/#',
    matches: ['/', '//', '///', '/a//'],
    refuses: ['a', 'a/'],
  },
  {
    rule: '4.7.3: no normalisation: composed and decomposed characters are different',
    filter: 'caf\u00e9',
    matches: ['caf\u00e9'],
    refuses: ['cafe\u0301', 'cafe', 'CAF\u00c9'],
  },
  {
    rule: '4.7.3: no substitution: dots, percent signs and backslashes mean nothing',
    filter: 'a/../b/%2F/\\',
    matches: ['a/../b/%2F/\\'],
    refuses: ['b/%2F/\\', 'a/../b///\\', 'a/../b/%2f/\\'],
  },
  {
    rule: '1.5.4: topics are UTF-8, in any script, outside the Basic Multilingual Plane too',
    filter: '温度/+/😀',
    matches: ['温度/7/😀', '温度/é/😀'],
    refuses: ['温/7/😀', '温度/7/😁'],
  },
  {
    rule: '1.5.4: U+FEFF is a character and never stripped',
    filter: '\uFEFFa',
    matches: ['\uFEFFa'],
    refuses: ['a'],
  },
  {
    rule: '4.7.1: characters that mean something in a regular expression or a shell mean nothing',
    filter: 'a.*/[b]?/(c|d)$/^',
    matches: ['a.*/[b]?/(c|d)$/^'],
    refuses: ['ab/b/c/', 'a.*/b/c/'],
  },
  {
    rule: '4.7.3: a topic has at most 65,535 bytes',
    filter: LONGEST,
    matches: [LONGEST],
    refuses: [LONGEST.slice(1), 'a'],
  },
  {
    rule: '4.7.3: there is no limit to the number of levels, other than that of bytes',
    filter: DEEPEST,
    matches: [DEEPEST],
    refuses: [DEEPEST.slice(1), `${DEEPEST.slice(0, -1)}b`],
  },
  {
    rule: '4.8.2: a Shared Subscription is matched by its Topic Filter, without "$share" and ShareName',
    filter: '$share/consumer1/sport/tennis/+',
    matches: ['sport/tennis/player1'],
    refuses: ['$share/consumer1/sport/tennis/player1', 'sport/tennis', 'consumer1/sport/tennis/player1'],
  },
  {
    rule: '4.8.2: "$share/consumer1//finance" is a Shared Subscription to "/finance"',
    filter: '$share/consumer1//finance',
    matches: ['/finance'],
    refuses: ['finance', '//finance'],
  },
  {
    rule: '4.8.2: "$share/group/#" matches no topic that begins with "$", like "#"',
    filter: '$share/group/#',
    matches: ['a', 'a/b', '/'],
    refuses: ['$SYS/uptime', '$share/group/a', '$share/group'],
  },
  {
    rule: '4.8.2: "$share/group/$SYS/#" is a Shared Subscription to "$SYS/#"',
    filter: '$share/group/$SYS/#',
    matches: ['$SYS/uptime', '$SYS'],
    refuses: ['SYS/uptime', '$share/group/$SYS/uptime'],
  },
  {
    rule: '4.8.2: only the exact text "$share/" makes a Shared Subscription',
    filter: '$SHARE/group/a',
    matches: ['$SHARE/group/a'],
    refuses: ['a', 'group/a', '$share/group/a'],
  },
]

/** Filters that MQTT 5 refuses, with the statement that says so. */
const NOT_A_FILTER: readonly (readonly [rule: string, filter: string])[] = [
  ['[MQTT-4.7.1-1] "#" stands on its own or behind a separator', 'sport/tennis#'],
  ['[MQTT-4.7.1-1] "#" is the last character', 'sport/tennis/#/ranking'],
  ['[MQTT-4.7.1-1] nothing follows "#", not even a separator', '#/'],
  ['[MQTT-4.7.1-2] "+" occupies an entire level', 'sport+'],
  ['[MQTT-4.7.1-2] "+" occupies an entire level, also the first', '+sport/a'],
  ['[MQTT-4.7.3-1] a filter has at least one character', ''],
  ['[MQTT-4.7.3-2] a filter holds no NUL', 'a/\u0000'],
  ['[MQTT-4.7.3-3] a filter has at most 65,535 bytes', 'a'.repeat(65_536)],
  ['[MQTT-1.5.4-1] a filter is well-formed UTF-8', 'a/\ud800'],
  ['[MQTT-4.8.2-1] a ShareName has at least one character', '$share//a'],
  ['[MQTT-4.8.2-2] a ShareName holds no "+"', '$share/+/a'],
  ['[MQTT-4.8.2-2] a ShareName holds no "#"', '$share/a#/b'],
  ['[MQTT-4.8.2-2] a ShareName is followed by "/" and a filter', '$share/group'],
  ['[MQTT-4.8.2-2] the filter of a Shared Subscription has at least one character', '$share/group/'],
  ['[MQTT-4.8.2-2] the filter of a Shared Subscription keeps the rules of 4.7', '$share/group/a/#/b'],
]

const short = (text: string): string => (text.length > 60 ? `${text.slice(0, 8)}… of ${text.length}` : text)

/** The rules of topic matching, for anything that claims to keep them. */
export function describeTopicMatching(subject: string, matches: TopicMatcher): void {
  describe(`topic matching by ${subject}`, () => {
    for (const { rule, filter, matches: matching, refuses } of RULES) {
      const named = (topics: readonly string[]) => topics.map(topic => ({ name: short(topic), topic }))
      describe(rule, () => {
        it.each(named(matching))(`'${short(filter)}' matches $name`, ({ topic }) => {
          expect(matches(filter, topic)).toBe(true)
        })
        it.each(named(refuses))(`'${short(filter)}' does not match $name`, ({ topic }) => {
          expect(matches(filter, topic)).toBe(false)
        })
      })
    }

    it.each(NOT_A_FILTER)('%s', (_rule, filter) => {
      expect(() => matches(filter, 'a')).toThrow('is not a valid Topic Filter')
    })
  })
}
