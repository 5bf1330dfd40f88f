// An Express app, ESM, as its author left it.
import express from 'express'
import { referenceHandler } from '@handover/load'

const app = express()
app.get('/hello', (req, res) => { res.json({ hello: 'Express' }) })
app.use(referenceHandler('1'))
// Longer than any client thinks: by default Node closes after 5 s, also in the face of a client whose machine is busy.
app.listen(process.env.PORT, '127.0.0.1').keepAliveTimeout = 65_000
