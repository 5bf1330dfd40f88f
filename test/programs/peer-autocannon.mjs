// autocannon as a load that ends on SIGINT and prints its result as JSON: its own command ends without a word.
//   arguments: URL, connections, requests at a time on each
import autocannon from 'autocannon'

const [url, connections, pipelining] = process.argv.slice(2)
const run = autocannon({ url, connections: Number(connections), pipelining: Number(pipelining), duration: 3_600, timeout: 30 }, (error, result) => {
  if (error) throw error
  console.log(JSON.stringify(result))
})
process.once('SIGINT', () => { run.stop() })
