import { expect, it } from 'vitest'
import { firstRequest, moment, publishesOf, responseTo } from '../support/asking.js'
import { holdClock } from '../support/held-clock.js'
import { finish, publisherOnPeer } from '../support/publisher-on-peer.js'

holdClock()

it.each(['everybody/#', 'a/+', '$SYS/broker', ''])(
  'a late response does not make this side publish to the Response Topic %j',
  async responseTopic => {
    const on = await publisherOnPeer()
    const { asked, request } = await firstRequest(on)
    on.connection.send(responseTo(request, { value: 1 }))
    on.connection.send(responseTo(request, { value: 2, properties: { responseTopic } }))
    await moment()
    expect(asked.value).toBe(1)
    expect(publishesOf(on.connection).map(({ topic }) => topic)).toEqual(['ask'])
    await finish(on)
  },
)
