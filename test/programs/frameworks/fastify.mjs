// A Fastify app, ESM, as its author left it: on localhost, which is two servers.
import Fastify from 'fastify'
import { referenceHandler } from '@handover/load'

const answer = referenceHandler('1')
const app = Fastify()
app.get('/hello', async () => ({ hello: 'Fastify' }))
app.addContentTypeParser('*', (request, body, done) => { done(null) })
app.all('/*', (request, reply) => { reply.hijack(); answer(request.raw, reply.raw) })
await app.listen({ port: Number(process.env.PORT) })
