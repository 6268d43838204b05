/**
 * The entry points of the package, by the module of `src` that each one is. One line adds one; the build writes
 * `exports` and `typesVersions` of package.json from it.
 */
export const ENTRY_POINTS = {
  '.': 'index',
  './client': 'client/index',
  './testing': 'testing/index',
  './opentelemetry': 'opentelemetry/index',
  './health': 'health/index',
  './asyncapi': 'asyncapi/index',
  './store': 'store/index',
}
