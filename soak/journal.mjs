// The journal of a process: one line per fact, written before the process goes on, so that `kill -9` loses none.
//   L <life>                              a process started
//   E <life>                              it ended by itself
//   C <number> <qos> <policy> <kind> <topic>   publish was called
//   O <number> <outcome>                  it settled
//   B <id>                                a handler began with a message for the first time
//   H <id>                                a handler succeeded
//   W <id> <topic> <time>                 the witness received a copy
//   D <id>                                the witness received a dead letter
//   R <time> <time>                       a restart of the broker, until a service had subscribed again
//   Q <id> <kind> <limit> <time>          a request was made, with its time limit
//   A <id> <time> response <id> <by>      it settled with a response: which request it is for, and which run of a handler made it
//   A <id> <time> <code> <text>           it settled with an error
//   S <id> <by>                           a handler ran for a request
//   P <operation>                         another operation was performed
//   T <process> <connection> <id>         the broker sent a message on this connection of a service
//   V <law> <text>                        the process saw that a law is broken
import { openSync, writeSync } from 'node:fs'

/** Violations of one process that are written; the rest is only counted. */
const MOST_VIOLATIONS = 50

export class Journal {
  violations = 0

  constructor(file) {
    this.descriptor = openSync(file, 'a')
  }

  note(...words) {
    writeSync(this.descriptor, `${words.join(' ')}\n`)
  }

  violation(law, text) {
    this.violations += 1
    if (this.violations <= MOST_VIOLATIONS) this.note('V', law, text.replaceAll('\n', ' '))
  }
}

/** The log of a client: all of it in a file, and its last lines in memory. */
export class RecentLog {
  lines = []
  error = text => this.add('error', text)
  warn = text => this.add('warn', text)
  log = text => this.add('log', text)
  debug = () => {}

  constructor(file) {
    this.descriptor = openSync(file, 'a')
  }

  add(level, text) {
    const line = `${new Date().toISOString()} ${level} ${text}`
    writeSync(this.descriptor, `${line}\n`)
    this.lines.push(line)
    if (this.lines.length > 100) this.lines.shift()
  }
}
