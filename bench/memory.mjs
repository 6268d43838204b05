// The memory of a process after a full garbage collection. Needs --expose-gc.
export function memory() {
  globalThis.gc()
  const { heapUsed, external, rss } = process.memoryUsage()
  return { heapUsed, external, rss }
}

export const FIGURES = ['heapUsed', 'external', 'rss']
export const megabytes = bytes => (bytes / 1e6).toFixed(1)
