// node:http alone.
const http = require('node:http')
const { referenceHandler } = require('@handover/load')

http.createServer(referenceHandler('1')).listen(process.env.PORT, '127.0.0.1')
