/**
 * Tells how far something has come, in MB: after two seconds, and then twice a second.
 *
 * @param total Bytes of all of it; NaN where that is not known.
 * @param had Bytes that were there before it began.
 * @returns Takes the bytes that were done since the last call.
 */
export function meter(
  what: string,
  total: number,
  progress: (text: string) => void,
  had = 0,
): (bytes: number) => void {
  const started = performance.now()
  let told = started + 1_500
  let done = had
  return (bytes) => {
    done += bytes
    const now = performance.now()
    if (now - told < 500) return
    told = now
    const seconds = ((now - started) / 1000 / (done - had)) * (total - done)
    const megabytes = (of: number) => (of / 1e6).toFixed(0)
    const of = Number.isNaN(total) ? ' MB' : ` of ${megabytes(total)} MB, ETA ${seconds.toFixed(0)} s`
    progress(`${what}: ${megabytes(done)}${of}`)
  }
}
