// A certificate for the loopback address, created for each run.
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { ownFolder } from '../owned.mjs'

export function makeCertificate() {
  const folder = ownFolder()
  const [cert, key] = [join(folder, 'cert.pem'), join(folder, 'key.pem')]
  const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2']
  const name = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1']
  const files = ['-keyout', key, '-out', cert]
  execFileSync('openssl', ['req', '-x509', ...kind, ...name, ...files], { stdio: 'pipe', timeout: 30_000 })
  return { cert, key }
}
