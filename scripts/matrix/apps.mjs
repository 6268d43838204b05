/** What Nest's generator is told, except for the version; `nest new` installs nothing here. */
const NEW = ['nest', 'new', 'app', '--skip-git', '--package-manager', 'npm']
const NEW_WITHOUT_INSTALL = [...NEW, '--skip-install']
const NEW_IN_COMMONJS = [
  ...['schematics', '@nestjs/schematics:application', '--name=app', '--type=cjs'],
  ...['--package-manager=npm', '--no-dry-run', '--no-interactive'],
]

const NEST_11 = { generate: generator(11, NEW_WITHOUT_INSTALL), nest: 11, runner: 'jest', aedes: '^0.51.0' }
const NEST_12 = { generate: generator(12, NEW_WITHOUT_INSTALL), nest: 12, runner: 'vitest', aedes: '^1.0.0' }

/**
 * The applications that the package is tried in, as their generators make them. `tsconfig` is what a team may have
 * set differently; `aedes` is the version that the test runner can load; `jestNeedsNode` is the first version of Node
 * on which the generated Jest can load Nest itself.
 */
export const APPS = {
  'nest-11': { ...NEST_11, title: 'Nest 11, module nodenext, Jest' },
  'nest-11-commonjs': {
    ...NEST_11,
    title: 'Nest 11, module commonjs, Jest',
    tsconfig: { module: 'commonjs', moduleResolution: 'node', resolvePackageJsonExports: undefined },
  },
  'nest-12': { ...NEST_12, title: 'Nest 12, ES modules, Vitest' },
  'nest-12-commonjs': {
    ...NEST_12,
    title: 'Nest 12, CommonJS, Jest',
    generate: generator(12, NEW_IN_COMMONJS),
    modules: 'commonjs',
    runner: 'jest',
    aedes: '^0.51.0',
    jestNeedsNode: 24,
  },
}

/** The path of a new user, with everything that the generator installs. */
export const NEWCOMERS = {
  'new-user-11': { ...NEST_11, title: 'Nest 11', generate: generator(11, NEW) },
  'new-user-12': { ...NEST_12, title: 'Nest 12', generate: generator(12, NEW) },
}

export const NODES = ['20.19', '22', '24']

function generator(version, command) {
  return ['exec', '--yes', `--package=@nestjs/cli@${version}`, '--', ...command]
}
