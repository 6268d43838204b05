export { EmbeddedBroker, type EmbeddedBrokerOptions } from './embedded-broker.js'
export { FaultLink, type FaultLinkOptions, type LinkDirection } from './fault-link.js'
export { PeerConnection, ScriptedPeer } from './scripted-peer.js'
export { streamPair } from './stream-pair.js'
