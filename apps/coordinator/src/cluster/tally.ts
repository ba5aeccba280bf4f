/** What a worker did since the coordinator started, over all of its connections. */
export class Tally {
  /** Samples whose gradients it computed. */
  samples = 0
  /** Seconds for which steps waited for nobody but this worker. */
  waitedFor = 0
  stalls = 0
  refused = 0
  /** Bytes to and from it. */
  sent = 0
  received = 0
}
