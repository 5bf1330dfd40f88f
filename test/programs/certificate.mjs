// A self-signed certificate for tests, for CN=localhost: made once a machine user, without another program, and kept in the temporary directory of the run.
import { generateKeyPairSync, sign } from 'node:crypto'
import { existsSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir, userInfo } from 'node:os'
import path from 'node:path'

const der = (tag, ...parts) => {
  const body = Buffer.concat(parts)
  // Browsers insist on the shortest form of a length (X.690, 10.1).
  const size = body.length < 128 ? [body.length] : body.length < 256 ? [0x81, body.length] : [0x82, body.length >> 8, body.length & 255]
  return Buffer.concat([Buffer.from([tag, ...size]), body])
}
const sequence = (...parts) => der(0x30, ...parts)
const oid = (hex) => der(6, Buffer.from(hex, 'hex'))

/** X.509 version 3 (RFC 5280) with a key on P-256. It has no extensions, and is good until 2049. */
function make() {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
  const ecdsaWithSha256 = sequence(oid('2a8648ce3d040302'))
  const localhost = sequence(der(0x31, sequence(oid('550403'), der(0x0c, Buffer.from('localhost')))))
  const validity = sequence(der(0x17, Buffer.from('200101000000Z')), der(0x17, Buffer.from('491231235959Z')))
  const version3 = der(0xa0, der(2, Buffer.from([2])))
  const serial = der(2, Buffer.from([1]))
  const signed = sequence(version3, serial, ecdsaWithSha256, localhost, validity, localhost, publicKey.export({ type: 'spki', format: 'der' }))
  const whole = sequence(signed, ecdsaWithSha256, der(3, Buffer.from([0]), sign('sha256', signed, privateKey)))
  const lines = whole.toString('base64').match(/.{1,64}/g).join('\n')
  return { key: privateKey.export({ type: 'pkcs8', format: 'pem' }), cert: `-----BEGIN CERTIFICATE-----\n${lines}\n-----END CERTIFICATE-----\n` }
}

export function certificate() {
  const folder = path.join(tmpdir(), `handover-test-certificate-der-${userInfo().uid}`)
  if (!existsSync(folder)) {
    const making = mkdtempSync(`${folder}-`)
    const { key, cert } = make()
    writeFileSync(path.join(making, 'key.pem'), key, { mode: 0o600 })
    writeFileSync(path.join(making, 'cert.pem'), cert)
    try { renameSync(making, folder) } catch { rmSync(making, { recursive: true }) }
  }
  return { key: readFileSync(path.join(folder, 'key.pem')), cert: readFileSync(path.join(folder, 'cert.pem')) }
}
