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
app.listen(process.env.PORT, '127.0.0.1')
