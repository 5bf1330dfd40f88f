// An Express app in TypeScript: Node cannot strip an enum, so it needs `--import tsx`.
import express, { type Request, type Response } from 'express'
import { referenceHandler } from '@handover/load'

enum Greeting { Short = 'hi', Long = 'hello' }

const app = express()
app.get('/hello', (_req: Request, res: Response): void => { res.json({ hello: Greeting.Long }) })
app.use(referenceHandler('1'))
// Longer than any client thinks: by default Node closes after 5 s, also in the face of a client whose machine is busy.
app.listen(Number(process.env['PORT']), '127.0.0.1').keepAliveTimeout = 65_000
