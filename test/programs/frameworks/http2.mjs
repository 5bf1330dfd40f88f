// node:http2 without TLS, as it stands behind a proxy.
import http2 from 'node:http2'
import { setTimeout as wait } from 'node:timers/promises'

http2.createServer(async (req, res) => {
  await wait(Number(new URL(req.url, 'http://localhost').searchParams.get('ms')))
  res.end(`1 ${process.pid}`)
}).listen(process.env.PORT, '127.0.0.1')
