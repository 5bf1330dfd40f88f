// @handover/load is for ES modules alone.
import { startLoad, type LoadResult } from '@handover/load'

const load = startLoad({ host: '127.0.0.1', port: 1 }, { keepAlive: { clients: 1 } })
const result: LoadResult = await load.stop()
console.log(result)
// @ts-expect-error -- the types were found
startLoad({ host: '127.0.0.1', port: 1 }, { keepAlives: 1 })
