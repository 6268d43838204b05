/** Files that know Nest: `mqtt.module.ts`, `mqtt.transport.ts`. */
const DOTTED = '^src/[^.]+[.][^./]+[.]ts$'
const ENTRY_POINTS = '^src/(testing|health|opentelemetry|asyncapi|store|cli)/'
const NEST = 'node_modules/(@nestjs|rxjs)/'

const only = (name, file, target) => ({
  name: `only-${name}`,
  comment: `${file} is the one place that runs ${target}`,
  severity: 'error',
  from: { path: '^src/', pathNot: file },
  to: { path: target, dependencyTypesNot: ['type-only'] },
})

/** @type {import('dependency-cruiser').IConfiguration} */
export default {
  forbidden: [
    { name: 'no-cycles', severity: 'error', from: {}, to: { circular: true } },
    {
      name: 'no-orphans',
      severity: 'error',
      from: { orphan: true, pathNot: '^src/(client/)?index\\.ts$' },
      to: {},
    },
    {
      name: 'core-decides',
      comment: 'core/ imports nothing outside core/: no package, no Node module, no other folder',
      severity: 'error',
      from: { path: '^src/core/' },
      to: { pathNot: '^src/core/' },
    },
    {
      name: 'client-knows-no-nest',
      comment: 'client/ imports core/, options/, mqtt and Node',
      severity: 'error',
      from: { path: '^src/client/' },
      to: { path: [NEST, '^src/'], pathNot: '^src/(core|options|client)/' },
    },
    {
      name: 'options-stand-on-core',
      severity: 'error',
      from: { path: '^src/options/' },
      to: { path: [NEST, '^src/'], pathNot: '^src/(core|options)/' },
    },
    {
      name: 'plain-name-knows-no-nest',
      comment: 'Only files with a dotted name import Nest',
      severity: 'error',
      from: { path: '^src/', pathNot: [DOTTED, '^src/index\\.ts$', ENTRY_POINTS] },
      to: { path: ['node_modules/@nestjs/', DOTTED] },
    },
    {
      name: 'entry-points-are-leaves',
      severity: 'error',
      from: { path: '^src/', pathNot: ENTRY_POINTS },
      to: { path: ENTRY_POINTS },
    },
    only('mqtt', '^src/client/connection/dialler\\.ts$', 'node_modules/mqtt/'),
    only(
      'mqtt-packet',
      '^src/(client/connection/packet-writer|cli/doctor/raw-connection|testing/[^/]+)\\.ts$',
      'node_modules/mqtt-packet/',
    ),
    only('@opentelemetry', '^src/opentelemetry/', 'node_modules/@opentelemetry/'),
    only('@nestjs/terminus', '^src/health/', 'node_modules/@nestjs/terminus/'),
    only('@valibot/to-json-schema', '^src/asyncapi/json-schemas\\.ts$', 'node_modules/@valibot/'),
    only('socks', '^src/client/connection/sockets\\.ts$', 'node_modules/socks/'),
    only('libsql', '^src/store/sqlite-engine\\.ts$', 'node_modules/libsql/'),
    only('aedes', '^src/testing/embedded-broker\\.ts$', 'node_modules/aedes/'),
    only('valibot', '^src/options/', 'node_modules/valibot/'),
  ],
  options: {
    tsConfig: { fileName: 'tsconfig.json' },
    tsPreCompilationDeps: true,
    doNotFollow: { path: 'node_modules' },
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'types', 'default'] },
  },
}
