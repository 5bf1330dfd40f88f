// Every form of listen() and bind() that Node accepts, one server each. Used by listeners.mjs, and by the test for the names.
//   c: { port, path, fd, host, done, signal }; a form that passes an options object keeps it in c.options.
const withOptions = (make) => (server, c) => server.listen((c.options = make(c)), c.done)

export const signatures = {
  'listen()': (server) => server.listen(),
  'listen(callback)': (server, c) => server.listen(c.done),
  'listen(null, callback)': (server, c) => server.listen(null, c.done),
  'listen(undefined)': (server) => server.listen(undefined),
  'listen(0)': (server) => server.listen(0),
  'listen(0, host)': (server) => server.listen(0, '127.0.0.1'),
  'listen(port)': (server, c) => server.listen(c.port),
  'listen("port")': (server, c) => server.listen(String(c.port)),
  'listen(port, callback)': (server, c) => server.listen(c.port, c.done),
  'listen(port, host)': (server, c) => server.listen(c.port, '127.0.0.1'),
  'listen(port, host, callback)': (server, c) => server.listen(c.port, '127.0.0.1', c.done),
  'listen(port, host, backlog)': (server, c) => server.listen(c.port, '127.0.0.1', 700),
  'listen(port, host, backlog, callback)': (server, c) => server.listen(c.port, '127.0.0.1', 20, c.done),
  'listen(port, backlog, callback)': (server, c) => server.listen(c.port, 30, c.done),
  'listen(port, "::")': (server, c) => server.listen(c.port, '::'),
  'listen(port, "::1")': (server, c) => server.listen(c.port, '::1'),
  'listen(port, "0.0.0.0")': (server, c) => server.listen(c.port, '0.0.0.0'),
  'listen(port, "localhost")': (server, c) => server.listen(c.port, 'localhost', c.done),
  'listen({ port })': withOptions(({ port }) => ({ port })),
  'listen({ port: undefined })': withOptions(() => ({ port: undefined })),
  'listen({ port: null })': withOptions(() => ({ port: null })),
  'listen({ port: "port", host })': withOptions(({ port }) => ({ port: String(port), host: '127.0.0.1' })),
  'listen({ port: 0, path: undefined })': withOptions(() => ({ port: 0, path: undefined })),
  'listen({ port, exclusive, backlog })': withOptions(({ port }) => ({ port, host: '127.0.0.1', exclusive: true, backlog: 900 })),
  'listen({ port, ipv6Only })': withOptions(({ port }) => ({ port, host: '::', ipv6Only: true })),
  'listen({ port, signal })': withOptions(({ port, signal }) => ({ port, signal })),
  'listen(frozen { port, host })': withOptions(({ port }) => Object.freeze({ port, host: '127.0.0.1' })),
  'listen(path)': (server, c) => server.listen(c.path),
  'listen(path, callback)': (server, c) => server.listen(c.path, c.done),
  'listen(path, backlog, callback)': (server, c) => server.listen(c.path, 60, c.done),
  'listen({ path })': withOptions(({ path }) => ({ path })),
  'listen({ path, port: undefined })': withOptions(({ path }) => ({ path, port: undefined })),
  'listen({ path, readableAll })': withOptions(({ path }) => ({ path, readableAll: true })),
  'listen({ path, writableAll })': withOptions(({ path }) => ({ path, writableAll: true })),
  'listen({ path, readableAll, writableAll, backlog })': withOptions(({ path }) => ({ path, readableAll: true, writableAll: true, backlog: 40 })),
  'listen(frozen { path })': withOptions(({ path }) => Object.freeze({ path })),
  'listen(abstract path)': (server, c) => server.listen(`\0${c.path}`),
  'listen({ fd })': withOptions(({ fd }) => ({ fd })),
  'listen({ reusePort })': withOptions(({ shared }) => ({ port: shared, host: '127.0.0.1', reusePort: true })),
  'listen({ reusePort }) again': withOptions(({ shared }) => ({ port: shared, host: '127.0.0.1', reusePort: true }))
}

const bindOptions = (make) => (socket, c) => socket.bind((c.options = make(c)), c.done)

export const datagramSignatures = {
  'bind()': (socket) => socket.bind(),
  'bind(callback)': (socket, c) => socket.bind(c.done),
  'bind(port)': (socket, c) => socket.bind(c.port),
  'bind(port, callback)': (socket, c) => socket.bind(c.port, c.done),
  'bind(port, address)': (socket, c) => socket.bind(c.port, c.any),
  'bind(port, address, callback)': (socket, c) => socket.bind(c.port, c.local, c.done),
  'bind(0, address)': (socket, c) => socket.bind(0, c.local),
  'bind({ port })': bindOptions(({ port }) => ({ port })),
  'bind({ port, address, exclusive })': bindOptions(({ port, local }) => ({ port, address: local, exclusive: true })),
  'bind(frozen { port, address })': bindOptions(({ port, local }) => Object.freeze({ port, address: local }))
}
