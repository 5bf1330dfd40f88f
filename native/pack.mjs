/**
 * Core's `prepack`: puts the addon that node-gyp built into packages/core/prebuilds, so that the published package loads without
 * any install script. It copies one file for the platform it runs on and fails when there is none; the binaries of the other
 * platforms are put beside it by whoever publishes.
 */

import { copyFileSync, existsSync, mkdirSync } from 'node:fs'
import path from 'node:path'

const built = path.join(import.meta.dirname, '..', 'build', 'Release', 'handover.node')
const target = path.resolve('prebuilds', `${process.platform}-${process.arch}`, 'handover.node')

if (existsSync(built)) {
  mkdirSync(path.dirname(target), { recursive: true })
  copyFileSync(built, target)
  console.error(`prepack: ${path.relative('.', target)}`)
} else {
  console.error(`prepack: there is no ${path.relative('.', built)}. Build it with "npm run build:native" at the top, then pack again.`)
  process.exitCode = 1
}
