// One program for every compiler and every way to resolve modules: compiled by matrix.test.ts, never run.
import http from 'node:http'
import { HandoverError, handover, reload, share, type HandoverOptions, type Report } from '@handover/core'
import { sendFds, type ReceiveOptions } from '@handover/core/fd'
import { moveWebSockets } from '@handover/core/ws'
import adoptExpress, { handover as adopt } from '@handover/express'
import plugin, { handover as named } from '@handover/fastify'
import inheritByDefault, { inherit, type GaugeRule } from '@handover/prom-client'
import { expect } from 'tstyche'

const options: HandoverOptions = { name: 'app', drainTimeout: 1_000 }
const server = handover(http.createServer(), options)
expect(server).type.toBe<http.Server>()
expect(reload()).type.toBe<Promise<Report>>()
share('sessions', { save: () => new Map([['a', 1]]), restore: (saved) => { saved.get('a')?.toFixed() } })
const wait: ReceiveOptions = { timeoutMs: 1 }
const rule: GaugeRule = 'sum'
const code: 'HANDOVER_OPTION' extends HandoverError['code'] ? true : false = true
expect(adoptExpress).type.toBe<typeof adopt>()
expect(plugin).type.toBe<typeof named>()
expect(inheritByDefault).type.toBe<typeof inherit>()
console.log(sendFds, moveWebSockets, wait, rule, code)
// @ts-expect-error -- the types were found: an option that does not exist is refused
handover(http.createServer(), { drainTimeouts: 1 })
