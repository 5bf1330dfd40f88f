// node:http alone.
const http = require('node:http')
const { referenceHandler } = require('@handover/load')

// Longer than any client thinks: by default Node closes after 5 s, also in the face of a client whose machine is busy.
http.createServer({ keepAliveTimeout: 65_000 }, referenceHandler('1')).listen(process.env.PORT, '127.0.0.1')
