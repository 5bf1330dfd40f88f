/** `exportKeyingMaterial` of a moved connection: RFC 8446, 7.5, and RFC 5705 for TLS 1.2. It answers what OpenSSL would have answered. */

const hashOf = (cipher: string): string => (cipher.endsWith('_SHA384') ? 'sha384' : 'sha256')

export function exportKeyingMaterial(
  { protocol, cipher, exporter }: { readonly protocol: 'TLSv1.3' | 'TLSv1.2'; readonly cipher: string; readonly exporter: Buffer },
  length: number, label: string, context?: Buffer
): Buffer {
  const { createHash, createHmac } = process.getBuiltinModule('node:crypto')
  const name = hashOf(cipher)
  const hash = (data: Buffer): Buffer => createHash(name).update(data).digest()
  const hmac = (key: Buffer, ...data: readonly Buffer[]): Buffer => createHmac(name, key).update(Buffer.concat(data)).digest()

  /** HKDF-Expand-Label. */
  function expand(secret: Buffer, what: string, about: Buffer, bytes: number): Buffer {
    const full = Buffer.from(`tls13 ${what}`)
    const info = Buffer.concat([Buffer.from([bytes >> 8, bytes & 255, full.length]), full, Buffer.from([about.length]), about])
    let block = Buffer.alloc(0)
    const blocks: Buffer[] = []
    for (let at = 1, had = 0; had < bytes; at++, had += block.length) {
      block = Buffer.from(hmac(secret, block, info, Buffer.from([at])))
      blocks.push(block)
    }
    return Buffer.concat(blocks).subarray(0, bytes)
  }

  const empty = Buffer.alloc(0)
  if (protocol === 'TLSv1.3') {
    const secret = expand(exporter, label, hash(empty), hash(empty).length)
    return expand(secret, 'exporter', hash(context ?? empty), length)
  }
  const randoms = 64
  const master = exporter.subarray(0, -randoms)
  const size = context ? Buffer.from([context.length >> 8, context.length & 255]) : empty
  const seed = Buffer.concat([Buffer.from(label), exporter.subarray(-randoms), size, context ?? empty])
  const blocks: Buffer[] = []
  for (let next = hmac(master, seed), had = 0; had < length; next = hmac(master, next)) {
    const block = hmac(master, next, seed)
    blocks.push(block)
    had += block.length
  }
  return Buffer.concat(blocks).subarray(0, length)
}
