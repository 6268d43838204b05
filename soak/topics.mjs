// Last levels of the topics of the publishers: soak/pub/<policy>/<qos>/<publisher>/<level>.
/** Handled by one of the services. */
export const SHARED_TOPICS = ['1', '2']
/** Handled by the service of this publisher. */
export const OWN_TOPICS = ['3']
export const TOPICS = [...SHARED_TOPICS, ...OWN_TOPICS]

export const isShared = topic => SHARED_TOPICS.includes(topic.slice(topic.lastIndexOf('/') + 1))
