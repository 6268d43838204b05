import type { INestApplication } from '@nestjs/common'
import { MqttError } from '../core/errors.js'
import { type AsyncApiDocument, toYaml } from './document.js'
import { AsyncApiPage, CONTENT_SECURITY_POLICY } from './page.js'

/** The parts of an HTTP adapter of Nest that this package uses. */
interface HttpAdapter {
  get(path: string, handler: (request: unknown, response: unknown) => void): unknown
  setHeader(response: unknown, name: string, value: string): unknown
  reply(response: unknown, body: string, status: number): unknown
}

const PATH = /^\/?[\w.~-]+(?:\/[\w.~-]+)*\/?$/
const HEADERS = {
  'cache-control': 'no-cache',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
} as const

/** Serves AsyncAPI documents. */
export const AsyncApiModule = {
  /**
   * Serves a document of {@link createAsyncApiDocument} on an HTTP application with Express or Fastify: as a page at `path`, as
   * JSON at `path` with the suffix `-json`, and as YAML with the suffix `-yaml`. The page has no script, loads nothing from
   * elsewhere, and has a strict Content Security Policy. Guards and the global prefix do not apply to it. Call it before
   * `app.init()` and `app.listen()`.
   * @param path such as `asyncapi`; letters, digits and `_`, `-`, `.`, `~` between slashes
   * @throws MqttError `INVALID_OPTION` for an invalid path, or if the application is initialized or has no HTTP adapter
   */
  setup(path: string, app: INestApplication, document: AsyncApiDocument): void {
    const adapter = adapterOf(path, app)
    const base = `/${path.replaceAll(/^\/|\/$/g, '')}`
    const name = base.slice(base.lastIndexOf('/') + 1)
    const page = new AsyncApiPage(document)
    adapter.get(base, (request, response) => {
      const url = urlOf(request)
      // Relative, because a proxy may serve the application under a prefix.
      const up = url.pathname.endsWith('/') ? '../' : ''
      const body = page.render({
        filter: url.searchParams.get('filter') ?? '',
        page: Math.trunc(Number(url.searchParams.get('page'))) || 1,
        jsonUrl: `${up}${name}-json`,
        yamlUrl: `${up}${name}-yaml`,
      })
      adapter.setHeader(response, 'content-security-policy', CONTENT_SECURITY_POLICY)
      send(adapter, response, 'text/html; charset=utf-8', body)
    })
    const json = once(() => JSON.stringify(document, undefined, 2))
    const yaml = once(() => toYaml(document))
    adapter.get(`${base}-json`, (_request, response) =>
      send(adapter, response, 'application/json; charset=utf-8', json()),
    )
    adapter.get(`${base}-yaml`, (_request, response) =>
      send(adapter, response, 'application/yaml; charset=utf-8', yaml()),
    )
  },
}

function send(adapter: HttpAdapter, response: unknown, type: string, body: string): void {
  for (const [name, value] of Object.entries({ ...HEADERS, 'content-type': type }))
    adapter.setHeader(response, name, value)
  adapter.reply(response, body, 200)
}

function adapterOf(path: string, app: INestApplication): HttpAdapter {
  if (!PATH.test(path))
    throw invalid(
      `the path ${JSON.stringify(path)} is not valid; use letters, digits, "_", "-", "." and "~" between slashes, such as "asyncapi"`,
    )
  const isInitialized: unknown = Reflect.get(app, 'isInitialized')
  if (isInitialized === true)
    throw invalid(
      'the application is already initialized, so it would not serve the page; call it before app.init() and app.listen()',
    )
  const adapter: unknown = typeof app.getHttpAdapter === 'function' ? app.getHttpAdapter() : undefined
  if (!isAdapter(adapter))
    throw invalid('the application has no HTTP adapter; create it with NestFactory.create()')
  return adapter
}

function isAdapter(adapter: unknown): adapter is HttpAdapter {
  if (typeof adapter !== 'object' || adapter === null) return false
  return ['get', 'setHeader', 'reply'].every(name => typeof Reflect.get(adapter, name) === 'function')
}

/** Express and Fastify both have the path with the query here, whatever parses the query. */
function urlOf(request: unknown): URL {
  const url: unknown =
    typeof request === 'object' && request !== null ? Reflect.get(request, 'url') : undefined
  const text = `http://localhost${String(url)}`
  return new URL(URL.canParse(text) ? text : 'http://localhost/')
}

function once(make: () => string): () => string {
  let made: string | undefined
  return () => {
    made ??= make()
    return made
  }
}

function invalid(problem: string): MqttError {
  return new MqttError('INVALID_OPTION', `AsyncApiModule.setup(): ${problem}`)
}
