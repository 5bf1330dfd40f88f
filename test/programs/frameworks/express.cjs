// An Express app, CommonJS, as its author left it.
const express = require('express')
const { referenceHandler } = require('@handover/load')

const app = express()
app.get('/hello', (req, res) => { res.json({ hello: 'Express' }) })
app.use(referenceHandler('1'))
app.listen(process.env.PORT, '127.0.0.1')
