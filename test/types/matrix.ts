// One program for every compiler and every way to resolve modules: compiled by matrix.test.ts, never run.
import http from 'node:http'
import { HandoverError, handover, reload, share, type HandoverOptions, type Report } from '@handover/core'
import { sendFds, type ReceiveOptions } from '@handover/core/fd'
import { moveWebSockets } from '@handover/core/ws'
import adoptExpress, { handover as adopt } from '@handover/express'
import plugin, { handover as named } from '@handover/fastify'
import inheritByDefault, { inherit, type GaugeRule } from '@handover/prom-client'

const options: HandoverOptions = { name: 'app', drainTimeout: 1_000 }
const server: http.Server = handover(http.createServer(), options)
const reports: Promise<Report> = reload()
share('sessions', { save: () => new Map([['a', 1]]), restore: (saved) => { saved.get('a')?.toFixed() } })
const wait: ReceiveOptions = { timeoutMs: 1 }
const rule: GaugeRule = 'sum'
const code: 'HANDOVER_OPTION' extends HandoverError['code'] ? true : false = true
const sameExpress: typeof adopt = adoptExpress
const sameFastify: typeof named = plugin
const sameInherit: typeof inherit = inheritByDefault
console.log(server, reports, sendFds, moveWebSockets, wait, rule, code, sameExpress, sameFastify, sameInherit)
// @ts-expect-error -- the types were found: an option that does not exist is refused
handover(server, { drainTimeouts: 1 })
