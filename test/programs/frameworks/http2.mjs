// node:http2 without TLS, as it stands behind a proxy.
import http2 from 'node:http2'
import { setTimeout as wait } from 'node:timers/promises'

http2.createServer(async (req, res) => {
  if (req.url.startsWith('/slow')) await wait(50)
  res.writeHead(200, { 'x-pid': String(process.pid), 'content-type': 'text/plain' }).end(req.url)
}).listen(process.env.PORT, '127.0.0.1')
