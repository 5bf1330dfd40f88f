export { inherit, inherit as default } from './index.js'
export type { GaugeRule, InheritOptions } from './index.js'
