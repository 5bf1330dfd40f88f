/** `@handover/core/ws`: moving the WebSockets of the package ws. */

export * from './websocket-moves.js'
