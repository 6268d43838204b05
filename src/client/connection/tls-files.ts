import { readFile } from 'node:fs/promises'
import { createSecureContext } from 'node:tls'
import { describeCause } from '../../core/errors.js'
import { tlsConflict } from '../../options/option-checks.js'
import type { MqttCredentials, TlsFileOptions } from '../../options/options.js'
import type { DialSecrets } from '../../options/resolved-options.js'

/** What an attempt is made with, once the TLS files are read. */
export type AttemptCredentials = Omit<MqttCredentials, keyof TlsFileOptions> &
  Pick<TlsFileOptions, 'passphrase'>

/**
 * Reads the TLS files of the options and of the credentials, which win, and checks that they can be used: `mqtt` reads
 * no files, and OpenSSL does not name the option at fault.
 * @throws Error that names the option and the file
 */
export async function readTlsFiles(
  { tlsFiles, passThrough }: DialSecrets,
  credentials: MqttCredentials,
): Promise<AttemptCredentials> {
  const conflict = tlsConflict(credentials)
  if (conflict !== undefined) throw new Error(`credentials: ${conflict}`)
  const { caPath, certPath, keyPath, passphrase = tlsFiles.passphrase, ...given } = credentials
  // What the credentials give in one way takes the place of what the options give in the other.
  const paths = {
    caPath: given.ca === undefined ? (caPath ?? tlsFiles.caPath) : undefined,
    certPath: given.cert === undefined ? (certPath ?? tlsFiles.certPath) : undefined,
    keyPath: given.key === undefined ? (keyPath ?? tlsFiles.keyPath) : undefined,
  }
  const ca = paths.caPath === undefined ? undefined : await readAll('caPath', paths.caPath)
  const cert = paths.certPath === undefined ? undefined : await read('certPath', paths.certPath)
  const key = paths.keyPath === undefined ? undefined : await read('keyPath', paths.keyPath)
  const found: AttemptCredentials = {
    ...given,
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...(passphrase === undefined ? {} : { passphrase }),
  }
  if ((ca ?? cert ?? key ?? passphrase) !== undefined) assertUsable({ ...passThrough, ...found }, paths)
  return found
}

async function readAll(option: string, paths: string | readonly string[]): Promise<Buffer[]> {
  return Promise.all([paths].flat().map(path => read(option, path)))
}

async function read(option: string, path: string): Promise<Buffer> {
  try {
    return await readFile(path)
  } catch (error) {
    throw new Error(`"${option}": the file ${path} cannot be read: ${describeCause(error)}`)
  }
}

function assertUsable(
  { ca, cert, key, passphrase }: AttemptCredentials,
  paths: Omit<DialSecrets['tlsFiles'], 'passphrase'>,
): void {
  try {
    createSecureContext({ ca, cert, key, passphrase })
  } catch (error) {
    const why = describeCause(error)
    const isLocked = /bad decrypt|bad password|passphrase|interrupted|empty password/i.test(why)
    const name = (option: string, path: string | undefined): string =>
      path === undefined ? `"${option}"` : `"${option}Path" (the file ${path})`
    if (isLocked)
      throw new Error(
        `the private key of ${name('key', paths.keyPath)} cannot be decrypted: "passphrase" is ${passphrase === undefined ? 'missing' : 'wrong'}`,
      )
    throw new Error(
      `the TLS files cannot be used: ${why}. Check ${name('cert', paths.certPath)}, ${name('key', paths.keyPath)} and "ca" or "caPath"`,
    )
  }
}
