import { fileURLToPath } from 'node:url'
import ts from 'typescript'
import { beforeAll, describe, expect, it } from 'vitest'
import { docBlocks } from '../../scripts/doc-blocks.mjs'
import { MqttClient } from '../../src/client/index.js'
import type { AuthenticationExchange } from '../../src/options/authentication.js'
import { ScriptedPeer } from '../../src/testing/index.js'

const PAGE = fileURLToPath(new URL('../../docs/authentication.md', import.meta.url))
const method = 'SCRAM-SHA-256'

/** The example of RFC 7677, section 3. */
const RFC = {
  nonce: 'rOprNGfwEbeRWgbNEkqO',
  first: 'n,,n=user,r=rOprNGfwEbeRWgbNEkqO',
  challenge: 'r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096',
  response:
    'c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=',
  success: 'v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=',
}

type Scram = (username: string, password: string, nonce?: string) => AuthenticationExchange
let scramSha256: Scram

beforeAll(async () => {
  const block = docBlocks(PAGE).find(({ path }) => path === 'src/scram.ts')
  if (block === undefined) throw new Error('docs/authentication.md has no src/scram.ts')
  const { outputText } = ts.transpileModule(block.code, {
    compilerOptions: { target: ts.ScriptTarget.ES2023, module: ts.ModuleKind.ESNext },
  })
  const module = await import(`data:text/javascript,${encodeURIComponent(outputText)}`)
  scramSha256 = module.scramSha256
})

/** A client with the recipe of the page, and what it has sent in CONNECT. */
async function connecting(password: string) {
  const peer = new ScriptedPeer()
  const client = new MqttClient({
    createStream: peer.createStream,
    connect: 'background',
    drainTimeoutMs: 100,
    authentication: { method, start: () => scramSha256('user', password, RFC.nonce) },
  })
  await client.start()
  const connection = await peer.connection()
  const { properties } = await connection.expect('connect')
  const properOf = (data: string) => ({ authenticationMethod: method, authenticationData: Buffer.from(data) })
  const challenge = async (data: string): Promise<string | undefined> => {
    connection.send({ cmd: 'auth', reasonCode: 0x18, properties: properOf(data) })
    const response = await connection.find('auth')
    return response.properties?.authenticationData?.toString()
  }
  const accept = (data: string) =>
    connection.send({ cmd: 'connack', reasonCode: 0, sessionPresent: false, properties: properOf(data) })
  const failed = new Promise<string>(resolve => {
    client.onState(state => state.status === 'waiting' && resolve(state.cause.message))
  })
  return { client, connection, first: properties?.authenticationData?.toString(), challenge, accept, failed }
}

describe('SCRAM-SHA-256 in docs/authentication.md', () => {
  it('authenticates as in the example of RFC 7677', async () => {
    const { client, first, challenge, accept } = await connecting('pencil')
    expect(first).toBe(RFC.first)
    expect(await challenge(RFC.challenge)).toBe(RFC.response)
    accept(RFC.success)
    await client.whenConnected()
    await client.close()
  })

  it('rejects a broker that does not know the password', async () => {
    const { client, challenge, accept, failed } = await connecting('pencil')
    await challenge(RFC.challenge)
    accept(RFC.success.replace('6', '7'))
    expect(await failed).toBe(
      'authentication failed: onSuccess failed: the broker has not proved that it knows the password',
    )
    await client.close()
  })

  it.each([
    ['without a challenge', undefined, RFC.success],
    ['without final data', RFC.challenge, ''],
  ])('rejects a broker that accepts the client %s', async (_name, data, success) => {
    const { client, challenge, accept, failed } = await connecting('pencil')
    if (data !== undefined) await challenge(data)
    accept(success)
    expect(await failed).toMatch(/has not proved that it knows the password/)
    await client.close()
  })

  it.each([
    ['another nonce', RFC.challenge.replace('r=rO', 'r=rP'), /the challenge has another nonce/],
    ['few iterations', RFC.challenge.replace('i=4096', 'i=1'), /the challenge asks for too few iterations/],
    ['no text', '', /the challenge has another nonce/],
  ])('rejects a challenge with %s', async (_name, data, message) => {
    const { client, connection, failed } = await connecting('pencil')
    const properties = { authenticationMethod: method, authenticationData: Buffer.from(data) }
    connection.send({ cmd: 'auth', reasonCode: 0x18, properties })
    expect(await failed).toMatch(message)
    await client.close()
  })
})
