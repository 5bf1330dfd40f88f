/** Serves, and prints how many of Node's methods are compiled, before and after all garbage is collected. */

const { setFlagsFromString } = require('node:v8')
setFlagsFromString('--allow-natives-syntax')
setFlagsFromString('--expose-gc')
const collect = require('node:vm').runInNewContext('gc')
const status = new Function('method', 'return %GetOptimizationStatus(method)')
const http = require('node:http')
const { Readable, Writable } = require('node:stream')
const classes = [http.IncomingMessage, http.OutgoingMessage, http.ServerResponse, require('node:net').Socket, Readable, Writable, require('node:events')]
const methods = classes.flatMap((each) => Object.values(Object.getOwnPropertyDescriptors(each.prototype)).map(({ value }) => value))
  .filter((value) => typeof value === 'function')
// https://github.com/v8/v8/blob/main/src/runtime/runtime.h: OptimizationStatus::kOptimized
const compiled = () => methods.filter((method) => (status(method) & 16) !== 0).length

const before = compiled()
collect()
http.createServer((request, response) => { response.end() }).listen(0, '127.0.0.1', () => {
  console.log(`compiled ${process.pid} ${before} ${compiled()}`)
})
