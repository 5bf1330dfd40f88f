// An http server on a Unix path that does to its path what programs do: before it listens, while it opens, at its end. It answers with its pid.
//   WAY_FILE   read at every boot: the name of a way, and after a colon `fail` where this version ends before it serves
//   AT         the path
//   ADAPTER    set: it gives its server to @handover/core; else it knows nothing of Handover
const fs = require('fs')
// Some programs have them before anything else is loaded.
const { rmSync, unlinkSync } = require('fs')
const { execFileSync } = require('child_process')
const http = require('http')
const path = require('path')
const { handover } = process.env.ADAPTER ? require('@handover/core') : { handover: (server) => server }

const at = process.env.AT
const temporary = `${at}.${process.pid}`
const [way, fails] = fs.readFileSync(process.env.WAY_FILE, 'utf8').split(': ')

function empty(folder) {
  for (const name of fs.readdirSync(folder)) fs.unlinkSync(path.join(folder, name))
  fs.rmdirSync(folder)
}

const before = {
  'unlink at the start': () => { try { unlinkSync(at) } catch { /* there was none */ } },
  'rm of the folder': () => {
    rmSync(path.dirname(at), { recursive: true, force: true })
    fs.mkdirSync(path.dirname(at))
  },
  'a promise': async () => { await fs.promises.unlink(at).catch(() => undefined) },
  'a callback': () => new Promise((resolve) => { fs.unlink(at, resolve) }),
  'moving it away': () => { try { fs.renameSync(at, `${at}.old`) } catch { /* there was none */ } },
  'file by file': () => {
    try { empty(path.dirname(at)) } catch { /* there was none */ }
    fs.mkdirSync(path.dirname(at), { recursive: true })
  },
  'a command': () => { execFileSync('rm', ['-f', at]) }
}

async function start() {
  await before[way]?.()
  const isRenamed = way === 'renaming into place'
  const server = handover(http.createServer((req, res) => res.end(String(process.pid))), { undoWindow: 200, linger: 200 })
  server.listen(isRenamed ? temporary : at, () => {
    if (!isRenamed) return
    fs.chmodSync(temporary, 0o666)
    fs.renameSync(temporary, at)
  })
  if (fails) process.exit(1)
  process.on('exit', () => { try { fs.unlinkSync(at) } catch { /* somebody did */ } })
}
if (process.env.ADAPTER) import('./print.mjs').then(({ printEvents }) => { printEvents(handover) }).then(start)
else void start()
