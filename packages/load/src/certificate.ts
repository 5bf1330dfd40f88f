/** A certificate for one run of a bench or of the demo, made by the program openssl. */

import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'

/** The files. */
export interface Certificate {
  readonly key: string
  readonly cert: string
}

/** They are removed after `run`. */
export async function withCertificate<T>(run: (files: Certificate) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(path.join(tmpdir(), 'handover-bench-'))
  try {
    const [key, cert] = [path.join(folder, 'key.pem'), path.join(folder, 'cert.pem')]
    execFileSync('openssl', [
      'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', '/CN=localhost',
      '-keyout', key, '-out', cert
    ], { stdio: 'ignore' })
    return await run({ key, cert })
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
