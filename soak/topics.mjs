// Topics of the publishers: soak/pub/<policy>/<qos>/<publisher>/<level>.
/** Every policy, with the QoS levels that it can have. */
export const POLICIES = [
  { policy: 'drop', qos: [0, 1, 2] },
  { policy: 'latest', qos: [0, 1, 2] },
  { policy: 'queue', qos: [0, 1, 2] },
  { policy: 'wait', qos: [0, 1, 2] },
  { policy: 'store', qos: [1, 2] },
]

// The last level.
/** Handled by one of the services. */
export const SHARED_TOPICS = ['1', '2']
/** Handled by the service of this publisher. */
export const OWN_TOPICS = ['3']
export const TOPICS = [...SHARED_TOPICS, ...OWN_TOPICS]

export const isShared = topic => SHARED_TOPICS.includes(topic.slice(topic.lastIndexOf('/') + 1))
