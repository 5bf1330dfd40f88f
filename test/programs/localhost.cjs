// Preload: localhost has an IPv6 address too, whatever /etc/hosts of this machine says.
const dns = require('node:dns')

const { lookup } = dns
dns.lookup = (host, options, callback) => {
  if (host !== 'localhost' || options?.all !== true) return lookup(host, options, callback)
  process.nextTick(callback, null, [{ address: '127.0.0.1', family: 4 }, { address: '::1', family: 6 }])
}
