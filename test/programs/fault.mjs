// server.mjs, or, where BEHAVIOUR_FILE says `fake …` and this process is a successor, fake-successor.mjs.
import { readFileSync } from 'node:fs'

const behaviour = readFileSync(process.env.BEHAVIOUR_FILE, 'utf8').trim()
if (behaviour.startsWith('fake ') && process.env.HANDOVER_SUCCESSOR) await (await import('./fake-successor.mjs')).run(JSON.parse(behaviour.slice(5)))
else await import('./server.mjs')
