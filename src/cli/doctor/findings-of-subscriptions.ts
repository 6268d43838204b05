import { describeReasonCode } from '../../core/protocol/packets.js'
import { note, ok, type Rule, type Said, warning } from './finding.js'
import type { Observations } from './observations.js'

const isRefused = (code: number | undefined): boolean => code === undefined || code >= 0x80
const codeText = (code: number | undefined): string =>
  code === undefined ? 'no SUBACK' : describeReasonCode(code)

function wildcards({ wildcards: observed }: Observations): Said | undefined {
  if (observed === undefined) return undefined
  if (isRefused(observed.code))
    return warning(
      `a filter with + and # was refused: ${codeText(observed.code)}`,
      'use handlers without wildcards, or allow them in the access rules of the broker',
    )
  if (observed.hasMatched) return ok('+ and # match')
  return warning('a filter with + and # was granted, but did not match', 'use handlers without wildcards')
}

function shared({ shared: observed, connack }: Observations): Said | undefined {
  const options = ['sharedGroup']
  if (connack.sharedSubscriptionAvailable === false)
    return note(
      'the broker announces that it has no Shared Subscriptions',
      'do not set sharedGroup; divide the topics among the instances',
      options,
    )
  if (observed === undefined) return undefined
  const { code, published, members } = observed
  if (isRefused(code))
    return note(
      `refused: ${codeText(code)}`,
      'do not set sharedGroup; divide the topics among the instances',
      options,
    )
  const [one, other] = members
  const total = one + other
  if (total === 0)
    return warning(
      'the subscription was granted, but delivers nothing: the broker treats $share/… as an ordinary topic',
      'do not set sharedGroup, because its handlers would receive nothing',
      options,
    )
  if (total > published)
    return warning(
      `the two members received ${one} and ${other} of ${published} messages: each received a copy`,
      'do not set sharedGroup, or recognise repeats with "dedupe"',
      [...options, 'dedupe'],
    )
  if (total < published)
    return warning(
      `the two members received ${one} and ${other} of ${published} messages`,
      'do not set sharedGroup, because messages are lost',
      options,
    )
  return ok(`two members received ${one} and ${other} of ${published} messages`, options)
}

function identifiers({ identifiers: observed, connack }: Observations): Said | undefined {
  if (connack.subscriptionIdentifiersAvailable === false)
    return note('the broker announces that it has none', 'nothing to do: the client finds handlers by topic')
  if (observed === undefined) return undefined
  if (!isRefused(observed.code) && observed.returned.includes(268_000_001))
    return ok('returned with messages')
  return warning(
    isRefused(observed.code)
      ? `a subscription with an identifier was refused: ${codeText(observed.code)}`
      : 'not returned with messages, although the broker does not announce that',
    'the client finds handlers by topic instead; set protocolVersion: 4 if subscriptions fail',
    ['protocolVersion'],
  )
}

function overlapping({ overlapping: observed }: Observations): Said | undefined {
  if (observed === undefined) return undefined
  const { copies, identifiers: ids } = observed
  if (copies === 0)
    return warning('a message that matches two filters did not arrive', 'avoid overlapping filters')
  if (copies === 1) return ok('one copy of a message that matches two filters')
  const text = `${copies} copies of a message that matches two filters`
  if (new Set(ids).size === copies)
    return note(`${text}, each with its own Subscription Identifier`, 'nothing to do: each handler runs once')
  return warning(
    text,
    'every handler that matches runs for each copy: avoid overlapping filters, or recognise repeats with "dedupe"',
    ['dedupe'],
  )
}

function noLocal({ noLocal: observed }: Observations): Said | undefined {
  if (observed === undefined) return undefined
  if (isRefused(observed.code))
    return warning(
      `a subscription with No Local was refused: ${codeText(observed.code)}`,
      'do not set noLocal',
      ['noLocal'],
    )
  if (observed.ownCopies === 0) return ok('own messages are not returned', ['noLocal'])
  return warning('granted, but own messages are returned', 'recognise own messages in the handler', [
    'noLocal',
  ])
}

const NO_RETAINED = 'do not publish with retain, and do not use retained() and presence'

function retained({ retained: observed, connack }: Observations): Said | undefined {
  const options = ['retain', 'presence']
  if (connack.retainAvailable === false)
    return note(
      'the broker announces that it does not support them',
      `${NO_RETAINED}: publish() rejects`,
      options,
    )
  if (observed === undefined) return undefined
  const { publish, hasArrived, hasFlag, hasWildcard, isRemoved } = observed
  if (publish.packet === undefined || (publish.code ?? 0) >= 0x80)
    return warning(
      `a retained publish failed: ${publish.failure ?? describeReasonCode(publish.code ?? 0)}`,
      NO_RETAINED,
      options,
    )
  if (!hasArrived) return warning('accepted, but not stored', NO_RETAINED, options)
  if (!hasFlag)
    return warning(
      'stored, but delivered without the RETAIN flag',
      'retained() and handlers cannot distinguish stored messages from live ones',
      options,
    )
  if (!hasWildcard)
    return warning(
      'stored, but not delivered to a filter with a wildcard',
      'use retained() with one filter per topic, without wildcards',
      ['retain'],
    )
  if (!isRemoved)
    return warning(
      'an empty message does not remove it',
      'publish a payload that means "none" instead',
      options,
    )
  return ok('stored, delivered with the RETAIN flag, and removed by an empty message', options)
}

function retainAsPublished({ retainAsPublished: observed }: Observations): Said | undefined {
  if (observed?.flag === undefined) return undefined
  if (observed.flag) return ok('live messages keep their RETAIN flag')
  return warning(
    'live messages lose their RETAIN flag',
    'retained() misses values that are published later; use an ordinary handler for them',
  )
}

function retainHandling({ retainHandling: observed }: Observations): Said | undefined {
  if (observed === undefined) return undefined
  const options = ['retainHandling']
  const { existing, never } = observed
  if (existing === 0 && never === 0)
    return ok('1 (new subscriptions only) and 2 (never) are respected', options)
  const ignored = [existing > 0 ? '1 (new subscriptions only)' : '', never > 0 ? '2 (never)' : '']
  return warning(
    `retained messages are sent despite ${ignored.filter(text => text !== '').join(' and ')}`,
    'expect retained messages after every subscription',
    options,
  )
}

function topicCharacters({ topicCharacters: observed }: Observations): Said | undefined {
  if (observed === undefined) return undefined
  const wrong = observed.filter(({ sent, received }) => sent !== received)
  if (wrong.length === 0) return ok('dots, spaces, empty levels and non-ASCII characters are preserved')
  const texts = wrong.map(({ sent, received, failure }) =>
    received === undefined
      ? `"${sent}" does not arrive${failure === undefined ? '' : ` (${failure})`}`
      : `"${sent}" arrives as "${received}"`,
  )
  return warning(texts.join(', '), 'do not use these characters in topics, responseTopicPrefix or clientId', [
    'requests.responseTopicPrefix',
  ])
}

export const SUBSCRIPTION_RULES: readonly Rule[] = [
  { id: 'topic-characters', title: 'Topic characters', check: 'topicCharacters', decide: topicCharacters },
  { id: 'wildcards', title: 'Wildcards', check: 'wildcards', decide: wildcards },
  { id: 'shared-subscriptions', title: 'Shared Subscriptions', check: 'shared', decide: shared },
  {
    id: 'subscription-identifiers',
    title: 'Subscription Identifiers',
    check: 'identifiers',
    isMqtt5: true,
    decide: identifiers,
  },
  { id: 'overlapping-filters', title: 'Overlapping filters', check: 'overlapping', decide: overlapping },
  { id: 'no-local', title: 'No Local', check: 'noLocal', isMqtt5: true, decide: noLocal },
  { id: 'retained', title: 'Retained messages', check: 'retained', decide: retained },
  {
    id: 'retain-as-published',
    title: 'Retain As Published',
    check: 'retainOptions',
    isMqtt5: true,
    decide: retainAsPublished,
  },
  {
    id: 'retain-handling',
    title: 'Retain Handling',
    check: 'retainOptions',
    isMqtt5: true,
    decide: retainHandling,
  },
]
