export * from './ws.js'
