export type { SqliteStoreOptions } from '../options/client-options.js'
export { sqliteStore } from './sqlite-store.js'
