/** Prints what a program can see of how it was started, before and after its first listen(); then it serves. */

const { fstatSync, readdirSync, readFileSync, readlinkSync } = require('node:fs')

const early = new Promise((resolve) => { setTimeout(resolve, 3_600_000, true).unref(); setTimeout(resolve, 50, false) })

/** What the process has open, and in which place. The numbers of sockets and pipes differ from process to process. */
const descriptors = () => readdirSync('/proc/self/fd').map((fd) => {
  try {
    return `${fd} ${readlinkSync(`/proc/self/fd/${fd}`).replace(/\[?\d+\]?/g, '')}`
  } catch {
    return 'gone'
  }
}).filter((line) => !/gone|\/proc/.test(line)).sort()

const environmentOf = (file) => readFileSync(file, 'utf8').split('\0').filter((line) => line !== '' && !line.startsWith('HANDOVER_')).sort()

exports.see = async (kind, main) => {
  const seen = {
    kind, main,
    argv: process.argv, argv0: process.argv0, execArgv: process.execArgv, execPath: process.execPath, title: process.title,
    cmdline: readFileSync('/proc/self/cmdline', 'utf8').split('\0'), env: Object.entries(process.env).sort(),
    environ: environmentOf('/proc/self/environ'), cwd: process.cwd(), umask: process.umask(), ppid: process.ppid,
    streams: [process.stdin, process.stdout, process.stderr].map(({ constructor, isTTY, fd }) => [constructor.name, isTTY === true, fd, fstatSync(fd).isFIFO(), fstatSync(fd).isFile()]),
    descriptors: descriptors(), features: process.features, channel: process.channel === undefined, exitCode: process.exitCode ?? null,
    listeners: process.eventNames().map(String).sort(), globals: Object.getOwnPropertyNames(globalThis).sort(),
    process: Object.getOwnPropertyNames(process).sort(), limits: readFileSync('/proc/self/limits', 'utf8'), preloaded: globalThis.preloaded ?? null,
    priority: require('node:os').getPriority(), inspector: require('node:inspector').url() ?? null, cache: Object.keys(require.cache).filter((file) => !file.includes('sees')).sort(),
    young: process.uptime() < 30, parent: module.parent?.filename ?? null
  }
  const firesEarly = await early
  require('node:http').createServer((_request, response) => { response.end('seen') }).listen(0, '127.0.0.1', () => {
    console.log(`sees ${process.pid} ${JSON.stringify({ ...seen, firesEarly })}`)
  })
}

if (require.main === module) void exports.see('commonjs', { filename: require.main.filename, id: module.id, paths: module.paths, children: require.main.children.length })
