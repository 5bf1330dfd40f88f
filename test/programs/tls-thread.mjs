// A worker thread with a TLS server of its own, in turns of connections: posts how many had an exact snapshot, and how many a record layer could go on with.
import { once } from 'node:events'
import { createRequire } from 'node:module'
import tls from 'node:tls'
import { parentPort, workerData } from 'node:worker_threads'

const { snapshotTls, TlsRecordLayer, watchTls } = createRequire(import.meta.url)(workerData.records)
watchTls()
const server = tls.createServer(workerData).listen(0, '127.0.0.1')
await once(server, 'listening')
let exact = 0
for (let turn = 0; turn < workerData.connections; turn++) {
  const secured = once(server, 'secureConnection')
  const client = tls.connect({ host: '127.0.0.1', port: server.address().port, rejectUnauthorized: false })
  const [socket] = await secured
  const heard = once(socket, 'data')
  client.write('hello')
  await heard
  const snapshot = snapshotTls(socket)
  if (snapshot.readSequence === 1n && snapshot.writeSequence === 2n) {
    new TlsRecordLayer(snapshot).dispose()
    exact++
  }
  client.destroy()
  socket.destroy()
}
server.close()
parentPort.postMessage(exact)
