import commonjs from './index.js'

const { handover } = commonjs
export { handover, handover as default }
export type { Handover, HandoverOptions } from './index.js'
