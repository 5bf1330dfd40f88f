// A Koa app as its author left it.
import Koa from 'koa'
import { referenceHandler } from '@handover/load'

const answer = referenceHandler('1')
const app = new Koa()
app.use(async (context, next) => {
  if (context.path === '/hello') context.body = { hello: 'Koa' }
  else await next()
})
app.use((context) => {
  context.status = 200
  context.respond = false
  answer(context.req, context.res)
})
// Longer than any client thinks: by default Node closes after 5 s, also in the face of a client whose machine is busy.
app.listen(process.env.PORT, '127.0.0.1').keepAliveTimeout = 65_000
