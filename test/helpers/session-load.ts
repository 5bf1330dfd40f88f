/** The load of `npm run demo -- --http2`. */

export { SessionLoad } from './built.js'
