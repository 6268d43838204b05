/** Two processes of each kind; one of them is never killed, so that a leak can grow. */
export function castOf(random) {
  const service = { clean: false, protocolVersion: 5, sharedGroup: 'workers' }
  return [
    {
      name: 'publisher-1',
      kind: 'publisher',
      mayBeKilled: true,
      options: { clean: false, protocolVersion: 5 },
    },
    {
      name: 'publisher-2',
      kind: 'publisher',
      mayBeKilled: false,
      options: { clean: true, protocolVersion: random.pick([5, 4]) },
    },
    {
      name: 'service-1',
      kind: 'service',
      mayBeKilled: true,
      options: { ...service, publisher: 'publisher-1' },
    },
    {
      name: 'service-2',
      kind: 'service',
      mayBeKilled: false,
      options: { ...service, publisher: 'publisher-2' },
    },
    {
      name: 'consumer-1',
      kind: 'consumer',
      mayBeKilled: true,
      options: { clean: random.chance(0.5), protocolVersion: 5 },
    },
    {
      name: 'consumer-2',
      kind: 'consumer',
      mayBeKilled: false,
      options: { clean: true, protocolVersion: 5 },
    },
  ]
}

/** What each kind of process must do again after a heal. */
export const PROGRESS = {
  publisher: [
    'drop 0',
    'drop 1',
    'latest 0',
    'latest 2',
    'queue 0',
    'queue 1',
    'wait 0',
    'wait 2',
    'store 1',
    'store 2',
  ],
  service: ['handled 0', 'handled 1', 'handled 2', 'responded', 'streamed'],
  consumer: ['response', 'stream', 'message', 'read', 'published'],
}
