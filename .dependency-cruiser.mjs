const only = (name, file, target) => ({
  name: `only-${name}`,
  comment: `${file} is the one file that knows ${target}`,
  severity: 'error',
  from: { path: '^src/', pathNot: file },
  to: { path: target, dependencyTypesNot: ['type-only'] },
})

/** @type {import('dependency-cruiser').IConfiguration} */
export default {
  forbidden: [
    { name: 'no-cycles', severity: 'error', from: {}, to: { circular: true } },
    { name: 'no-orphans', severity: 'error', from: { orphan: true, pathNot: '^src/index\\.ts$' }, to: {} },
    {
      name: 'plain-name-knows-no-nest',
      comment: 'A file with a plain name imports no @nestjs package and no file with a dotted name',
      severity: 'error',
      from: { path: '^src/', pathNot: ['/[^/]+\\.[^/]+\\.ts$', '^src/index\\.ts$'] },
      to: { path: ['node_modules/@nestjs/', '^src/.*/?[^/]+\\.[^/]+\\.ts$'] },
    },
    {
      name: 'pure',
      comment: 'Pure parts: no sockets, no timers, no client',
      severity: 'error',
      from: {
        path: [
          '^src/topic/',
          '^src/transport/connection/(connection-state|oldest-wait|protocol-errors|reconnect-policy|broker-limits|packet-ids|packet-length|subscribe-batches|subscription-identifiers|subscription-options|reason-code-rules|connection-log|publish-encoder|write-batch|write-holding|inbound-size-guard)\\.ts$',
          '^src/transport/inbound/(ack-window|ordered-lanes|run-scheduler|intake|redeliveries|delivery|inbound-count|routes|reply-target)\\.ts$',
          '^src/transport/outbound/(outbound-gate|pending-publish|outbound-buffer|link-window|topic-aliases|outcome-count|drop-episode|waiting)\\.ts$',
        ],
      },
      to: {
        dependencyTypes: ['core', 'npm', 'npm-dev', 'npm-peer', 'npm-optional', 'npm-no-pkg', 'npm-unknown'],
        dependencyTypesNot: ['type-only'],
      },
    },
    {
      name: 'ground-floor',
      comment: 'errors, codec, options and topic stand on nothing above them',
      severity: 'error',
      from: {
        path: '^src/(errors|told-error|codec|options|sealed|resolved-options|schema|option-checks|option-replacements|publish-outcome|log-thinning|deadline|idle-waiters|pauses)\\.ts$|^src/topic/',
      },
      to: {
        path: '^src/',
        pathNot:
          '^src/(errors|told-error|codec|options|sealed|resolved-options|schema|option-checks|option-replacements|publish-outcome|log-thinning|deadline|idle-waiters|pauses)\\.ts$|^src/topic/',
        dependencyTypesNot: ['type-only'],
      },
    },
    {
      name: 'connection-below-inbound-and-outbound',
      severity: 'error',
      from: { path: '^src/transport/connection/' },
      to: { path: '^src/transport/(inbound|outbound)/' },
    },
    {
      name: 'inbound-and-outbound-are-strangers',
      severity: 'error',
      from: { path: '^src/transport/(inbound|outbound)/' },
      to: { path: '^src/transport/(inbound|outbound)/', pathNot: '^src/transport/$1/' },
    },
    {
      name: 'testing-is-a-leaf',
      severity: 'error',
      from: { path: '^src/', pathNot: '^src/testing/' },
      to: { path: '^src/testing/' },
    },
    only('mqtt', '^src/transport/connection/mqtt-client\\.ts$', 'node_modules/mqtt/'),
    only(
      'mqtt-packet',
      '^src/(transport/connection/packet-writer|testing/(scripted-peer|packet-tap))\\.ts$',
      'node_modules/mqtt-packet/',
    ),
    only('aedes', '^src/testing/embedded-broker\\.ts$', 'node_modules/aedes/'),
    only('valibot', '^src/(schema|option-checks|transport/handler-options)\\.ts$', 'node_modules/valibot/'),
  ],
  options: {
    tsConfig: { fileName: 'tsconfig.json' },
    tsPreCompilationDeps: true,
    doNotFollow: { path: 'node_modules' },
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'types', 'default'] },
  },
}
