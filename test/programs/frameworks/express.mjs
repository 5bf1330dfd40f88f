// An Express app, ESM, as its author left it.
import express from 'express'
import { referenceHandler } from '@handover/load'

const app = express()
app.get('/hello', (req, res) => { res.json({ hello: 'Express' }) })
app.use(referenceHandler('1'))
app.listen(process.env.PORT, '127.0.0.1')
