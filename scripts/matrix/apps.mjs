/**
 * The applications that the package is tried in, as their generators make them. `change` is what a team may have
 * set differently; `aedes` is the version that the test runner can load; `jestNeedsNode` is the first version of Node
 * on which the generated Jest can load Nest itself.
 */
export const APPS = {
  'nest-11': {
    title: 'Nest 11, module nodenext, Jest',
    generate: generator(11, [
      'nest',
      'new',
      'app',
      '--skip-git',
      '--skip-install',
      '--package-manager',
      'npm',
    ]),
    nest: 11,
    runner: 'jest',
    aedes: '^0.51.0',
  },
  'nest-11-commonjs': {
    title: 'Nest 11, module commonjs, Jest',
    generate: generator(11, [
      'nest',
      'new',
      'app',
      '--skip-git',
      '--skip-install',
      '--package-manager',
      'npm',
    ]),
    nest: 11,
    runner: 'jest',
    aedes: '^0.51.0',
    tsconfig: { module: 'commonjs', moduleResolution: 'node', resolvePackageJsonExports: undefined },
  },
  'nest-12': {
    title: 'Nest 12, ES modules, Vitest',
    generate: generator(12, [
      'nest',
      'new',
      'app',
      '--skip-git',
      '--skip-install',
      '--package-manager',
      'npm',
    ]),
    nest: 12,
    runner: 'vitest',
    aedes: '^1.0.0',
  },
  'nest-12-commonjs': {
    title: 'Nest 12, CommonJS, Jest',
    generate: generator(12, [
      ...['schematics', '@nestjs/schematics:application', '--name=app', '--type=cjs'],
      ...['--package-manager=npm', '--no-dry-run', '--no-interactive'],
    ]),
    nest: 12,
    modules: 'commonjs',
    runner: 'jest',
    aedes: '^0.51.0',
    jestNeedsNode: 24,
  },
}

export const NODES = ['20.19', '22', '24']

function generator(version, command) {
  return ['exec', '--yes', `--package=@nestjs/cli@${version}`, '--', ...command]
}
