export { handover, handover as default } from './index.js'
export type { Handover, HandoverOptions } from './index.js'
