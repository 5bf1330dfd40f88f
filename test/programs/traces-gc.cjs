/** Serves, and prints each garbage collection; after a second that it has settled. */

require('node:v8').setFlagsFromString('--trace-gc')
require('node:http').createServer((request, response) => { response.end() }).listen(0, '127.0.0.1')
setTimeout(() => { console.log(`settled ${process.pid}`) }, 1_000)
