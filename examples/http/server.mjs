// node examples/http/server.mjs
// kill -HUP <the pid that it prints>
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import { setTimeout as wait } from 'node:timers/promises'
import { handover } from '@handover/core'

const version = readFileSync(process.env.APP_VERSION_FILE ?? new URL('../version.txt', import.meta.url), 'utf8').trim()
const { KEY, CERT } = process.env // two files: then it speaks HTTPS
const options = KEY ? { key: readFileSync(KEY), cert: readFileSync(CERT) } : {}
const server = handover((KEY ? https : http).createServer(options, async (req, res) => {
  const { pathname, searchParams } = new URL(req.url, 'http://localhost')
  const number = (name, otherwise) => Number(searchParams.get(name) ?? otherwise)
  res.setHeader('x-version', version).setHeader('x-pid', process.pid)
  if (pathname === '/echo') {
    const hash = createHash('sha256')
    let length = 0
    for await (const chunk of req) { hash.update(chunk); length += chunk.length }
    return res.end(JSON.stringify({ sha256: hash.digest('hex'), length }))
  }
  if (pathname === '/stream') {
    for (let i = 0; i < number('chunks', 10); i++) { await wait(i && number('ms', 50)); res.write(`chunk ${i}\n`) }
    return res.end()
  }
  if (pathname === '/slow') await wait(number('ms', 300))
  res.end(JSON.stringify({ version }))
}))
server.listen(Number(process.env.PORT ?? 3000), () => console.log(`version ${version} listening on`, server.address(), `process ${process.pid}`))
