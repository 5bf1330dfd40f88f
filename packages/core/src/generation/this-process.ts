/**
 * The one generation of this process, behind a symbol that every copy of the package finds: ESM and CommonJS, the application's own and the
 * command's.
 */

import { realHost } from '../handover/host.js'
import { Generation } from './generation.js'

const key: unique symbol = Symbol.for('@handover/core')
const shared = globalThis as unknown as Record<typeof key, Generation | undefined>

export const generationOfProcess = (): Generation => (shared[key] ??= new Generation(realHost(process.env)))
