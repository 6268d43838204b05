/** A message, as far as its size matters. */
interface Sized {
  readonly bytes: number
  /** Its bytes count as held. */
  isHeld: boolean
}

/** Bytes of messages between the parser and the end of their handlers, as far as they are in this process. */
export class HeldBytes {
  private held = 0

  constructor(
    private readonly most: number,
    /** QoS 2 messages that the broker has not released. */
    readonly unreleased: { readonly count: number; readonly bytes: number },
  ) {}

  get bytes(): number {
    return this.held + this.unreleased.bytes
  }

  /** Whether more is held than may be, and room can come by what handlers do. */
  get isOver(): boolean {
    return this.held > 0 && this.held + this.unreleased.bytes > this.most
  }

  /** Whether more waits for the broker to release it than may be held: only the broker can make room. */
  get isHopeless(): boolean {
    return this.unreleased.bytes > this.most && this.unreleased.count > 1
  }

  /** Whether there is no room for one that is held already. A single message is taken whatever its size is. */
  hasNoRoomFor(bytes: number): boolean {
    return this.isOver && this.bytes > bytes
  }

  /** As much of it as one loop may hold of QoS 0, which nobody may ever read. */
  get shareOfLoop(): number {
    return this.most / 4
  }

  /** A message came. @returns whether more is held than may be */
  hold(message: Sized): boolean {
    if (!message.isHeld) this.held += message.bytes
    message.isHeld = true
    return this.held + this.unreleased.bytes > this.most
  }

  /** Nothing holds the message any more. */
  release(message: Sized): void {
    if (message.isHeld) this.held -= message.bytes
    message.isHeld = false
  }

  /** A loop holds so much of QoS 0, which is done for the dispatcher. */
  add(bytes: number): void {
    this.held += bytes
  }

  remove(bytes: number): void {
    this.held -= bytes
  }
}
