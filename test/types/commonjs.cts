// The same for a program that is CommonJS: import compiles to require().
import http = require('node:http')
import express = require('express')
import Fastify = require('fastify')
import core = require('@handover/core')
import fd = require('@handover/core/fd')
import adopter = require('@handover/express')
import byName = require('@handover/fastify')
import plugin, { handover } from '@handover/fastify'

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
const same = <A, B>(_holds: Same<A, B>): void => undefined

const server = core.handover(http.createServer(), { name: 'app' })
same<typeof server, http.Server>(true)
const report: Promise<core.Report> = core.reload()
console.log(report, core.handover.state, fd.sendFds)

async function main(): Promise<void> {
  const app = Fastify()
  await app.register(plugin, { drainTimeout: 30_000 })
  await app.register(handover)
  await app.register(byName.handover)
  const generation: number = app.handover.generation
  console.log(generation)
  // @ts-expect-error -- no such option
  await app.register(plugin, { drainTimeouts: 1 })
}
void main()

const web = adopter.handover(express())
same<typeof web, express.Express>(true)
web.listen(3000)
