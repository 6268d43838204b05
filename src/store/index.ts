export type { SqliteInboxOptions, SqliteStoreOptions } from '../options/client-options.js'
export { type SqliteInbox, sqliteInbox } from './sqlite-inbox.js'
export { sqliteStore } from './sqlite-store.js'
