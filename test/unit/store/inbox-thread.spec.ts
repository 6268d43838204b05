import { once } from 'node:events'
import { setImmediate } from 'node:timers/promises'
import { MessageChannel } from 'node:worker_threads'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { InboxFile } from '../../../src/store/inbox-file.js'
import { InboxThread } from '../../../src/store/inbox-worker.js'
import { newFile, removeFilesAfterEach } from '../../support/store-places.js'

removeFilesAfterEach()

const KEY = { scope: 'alarms', key: '1', maxAgeMs: 60_000, maxEntries: 10 }

describe('the thread of an inbox', () => {
  afterEach(() => {
    vi.restoreAllMocks()
  })

  it('continues after an error while it removes old keys', async () => {
    const trimSome = vi.spyOn(InboxFile.prototype, 'trimSome')
    trimSome.mockReturnValueOnce(true).mockImplementationOnce(() => {
      throw new Error('disk I/O error')
    })
    const { port1, port2 } = new MessageChannel()
    new InboxThread(port1)
    let id = 0
    const call = async (given: object) => {
      port2.postMessage([{ id: ++id, nowMs: 5_000, ...given }])
      const [{ results }] = await once(port2, 'message')
      return results
    }
    expect(await call({ kind: 'open', settings: { file: newFile(), onCorrupt: 'fail' } })).toEqual([
      { id: 1, value: undefined },
    ])
    await setImmediate()
    await setImmediate()
    expect(trimSome).toHaveBeenCalledTimes(2)
    expect(await call({ kind: 'add', ...KEY })).toEqual([{ id: 2, value: undefined }])
    expect(await call({ kind: 'has', ...KEY })).toEqual([{ id: 3, value: true }])
    await call({ kind: 'close' })
    port2.close()
  })
})
