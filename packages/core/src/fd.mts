export * from './fd.js'
