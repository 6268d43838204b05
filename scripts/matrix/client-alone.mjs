import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { docBlocks } from '../doc-blocks.mjs'
import { npm } from './scratch-app.mjs'

const PROGRAM = docBlocks(new URL('../../docs/client.md', import.meta.url)).find(
  ({ path }) => path === 'publish.mjs',
)

/** The package alone, in a folder without Nest and RxJS: the first program of docs/client.md, as an ES module and in CommonJS. */
export class ClientAlone {
  constructor(parent) {
    this.parent = parent
    this.folder = join(parent, 'app')
  }

  async create(tarball) {
    mkdirSync(this.folder, { recursive: true })
    this.write('package.json', JSON.stringify({ private: true }))
    this.write('publish.mjs', PROGRAM.code)
    this.write('publish.cjs', inCommonJs(PROGRAM.code))
    await this.npm(['install', '--no-audit', '--no-fund', '--prefer-offline', tarball])
    const peers = readdirSync(join(this.folder, 'node_modules')).filter(name => /^(@nestjs|rxjs)$/.test(name))
    if (peers.length > 0) throw new Error(`${peers.join(' and ')} came with it`)
  }

  steps(node) {
    return {
      import: () => this.publish('publish.mjs', node),
      require: () => this.publish('publish.cjs', node),
    }
  }

  async publish(program, node) {
    const { EmbeddedBroker } = await import('nestjs-mqtt/testing')
    const broker = await EmbeddedBroker.start()
    try {
      const command = ['exec', '--yes', `--package=node@${node}`, '--', 'node', program]
      const env = { MQTT_URL: broker.url }
      const { stdout } = await this.npm(command, { env })
      const expected = [20.5, 20.9, 21.4].map(celsius => `${celsius} acknowledged\n`).join('')
      if (stdout !== expected) throw Object.assign(new Error(`${program} printed something else`), { stdout })
    } finally {
      await broker.stop()
    }
  }

  write(path, code) {
    writeFileSync(join(this.folder, path), code)
  }

  npm(args, options) {
    return npm(args, { cwd: this.folder, ...options })
  }
}

function inCommonJs(code) {
  const [imports, ...body] = code.split(/(?<=from 'nestjs-mqtt\/client'\n)/)
  const required = imports.replace(/import (\{.*\}) from ('.*')/, 'const $1 = require($2)')
  return `${required}async function main() {${body.join('')}}\nmain()\n`
}
