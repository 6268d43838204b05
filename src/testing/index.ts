export { EmbeddedBroker, type EmbeddedBrokerOptions } from './embedded-broker.js'
export { PeerConnection, ScriptedPeer } from './scripted-peer.js'
export { streamPair } from './stream-pair.js'
