/** `@handover/core/fd`: passing descriptors and listeners between processes, without the rest of Handover. */

export { closeFds, describeFd, peerCredentials, receiveFds, sendFds, socketPair } from './descriptor-transfer.js'
export type { Connection } from './argument-errors.js'
export type { PeerCredentials, Received, ReceiveOptions, SocketDescription } from './descriptor-transfer.js'
export { receiveListener, sendListener } from './listener-transfer.js'
export type { ListenerDescription, ReceivedListener } from './listener-transfer.js'
export type { WaitOptions } from './turns.js'
