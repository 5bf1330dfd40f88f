export { handover, handover as default } from './index.js'
export type * from './index.js'
