import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256']

export interface CertificateOptions {
  /** Subject Alternative Names, such as `DNS:localhost`. */
  readonly names?: string
  /** Days from now until it expires; negative for a certificate that has expired. */
  readonly days?: number
}

/** A folder with the files of certificate authorities made by OpenSSL, and of certificates that they issued. */
export class Authorities {
  private readonly folder = mkdtempSync(join(tmpdir(), 'nestjs-mqtt-authorities-'))

  path(name: string): string {
    return join(this.folder, name)
  }

  /** Creates `<name>.crt` and `<name>.key` of an authority. */
  authority(name: string): void {
    const out = ['-nodes', '-keyout', `${name}.key`, '-out', `${name}.crt`]
    this.openssl('req', '-x509', ...KEY, ...out, '-days', '400', '-subj', `/CN=${name}`)
  }

  /** Creates `<name>.crt` and `<name>.key`, issued by an authority. */
  issue(name: string, authority: string, { names, days = 365 }: CertificateOptions = {}): void {
    this.openssl(
      'req',
      ...KEY,
      '-nodes',
      '-keyout',
      `${name}.key`,
      '-out',
      `${name}.csr`,
      '-subj',
      `/CN=${name}`,
    )
    writeFileSync(this.path(`${name}.ext`), names === undefined ? '' : `subjectAltName=${names}\n`)
    const by = ['-CA', `${authority}.crt`, '-CAkey', `${authority}.key`, '-CAcreateserial']
    const what = [
      '-in',
      `${name}.csr`,
      '-out',
      `${name}.crt`,
      '-days',
      String(days),
      '-extfile',
      `${name}.ext`,
    ]
    this.openssl('x509', '-req', ...by, ...what)
  }

  /** Creates `<name>.enc.key`, a copy of the key that needs a passphrase. */
  encrypt(name: string, passphrase: string): void {
    this.openssl(
      'pkcs8',
      '-topk8',
      '-in',
      `${name}.key`,
      '-out',
      `${name}.enc.key`,
      '-passout',
      `pass:${passphrase}`,
    )
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true })
  }

  private openssl(...args: string[]): void {
    execFileSync('openssl', args, { cwd: this.folder, stdio: 'ignore' })
  }
}
