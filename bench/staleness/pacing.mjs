// When the messages of a load are due. paho_publisher.py does the same.

/**
 * Calls `send` for `perTick` messages each `tickMs`. A load of bursts has a pause of `tickMs` after each, however
 * late that was; any other load keeps its rate, and makes up for one tick that it missed.
 */
export function pace({ perTick, tickMs, isBurst }, send) {
  let nextAt = performance.now()
  let owed = 0
  const tick = () => {
    const now = performance.now()
    const due = isBurst ? 1 : Math.min(2, Math.floor((now - nextAt) / tickMs) + 1)
    nextAt = isBurst ? now + tickMs : Math.max(nextAt, now - 2 * tickMs) + due * tickMs
    for (owed += due * perTick; owed >= 1; owed -= 1) send()
    setTimeout(tick, Math.max(0, nextAt - performance.now()))
  }
  tick()
}
