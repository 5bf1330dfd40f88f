// A self-signed certificate for tests, made once a machine user by openssl and kept in the temporary directory of the run.
import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { tmpdir, userInfo } from 'node:os'
import path from 'node:path'

export function certificate() {
  const folder = path.join(tmpdir(), `handover-test-certificate-${userInfo().uid}`)
  if (!existsSync(folder)) {
    const making = mkdtempSync(`${folder}-`)
    execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '3650', '-subj', '/CN=localhost',
      '-keyout', path.join(making, 'key.pem'), '-out', path.join(making, 'cert.pem')], { stdio: 'ignore' })
    try { renameSync(making, folder) } catch { rmSync(making, { recursive: true }) }
  }
  return { key: readFileSync(path.join(folder, 'key.pem')), cert: readFileSync(path.join(folder, 'cert.pem')) }
}
