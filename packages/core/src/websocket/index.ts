/** `@handover/core/ws`: moving the WebSockets of the package ws. */

export { moveWebSockets, type MoveWebSocketsOptions } from './websocket-moves.js'
export type { MovableWebSocket, MovableWebSocketServer } from './websocket.js'
