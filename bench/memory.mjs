// What a process holds, once everything is collected that can be. Needs --expose-gc.
export function memory() {
  globalThis.gc()
  const { heapUsed, external, rss } = process.memoryUsage()
  return { heapUsed, external, rss }
}

export const FIGURES = ['heapUsed', 'external', 'rss']
export const megabytes = bytes => (bytes / 1e6).toFixed(1)
