// A Fastify app, CommonJS, as its author left it: on localhost, which is two servers.
const { referenceHandler } = require('@handover/load')
const app = require('fastify')()

const answer = referenceHandler('1')
app.get('/hello', async () => ({ hello: 'Fastify' }))
app.addContentTypeParser('*', (request, body, done) => { done(null) })
app.all('/*', (request, reply) => { reply.hijack(); answer(request.raw, reply.raw) })
app.listen({ port: Number(process.env.PORT) })
