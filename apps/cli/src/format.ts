/** Seconds as `45 s`, `12 min 30 s`, `3 h 05 min` or `2 d 4 h`. */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return '–'
  const s = Math.round(seconds)
  const two = (n: number) => String(n).padStart(2, '0')
  if (s < 60) return `${s} s`
  if (s < 3_600) return `${Math.floor(s / 60)} min ${two(s % 60)} s`
  if (s < 86_400) return `${Math.floor(s / 3_600)} h ${two(Math.floor((s % 3_600) / 60))} min`
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3_600)} h`
}

export const percent = (share: number) => `${(100 * share).toFixed(2)} %`
/** Epochs of full-size images as `6.1`. */
export const work = (epochs: number) => epochs.toLocaleString('en-US', { maximumFractionDigits: 1 })
export const grouped = (n: number) => n.toLocaleString('en-US')
/** A count of things: `1 step`, `1,024 steps`. */
export const counted = (n: number, thing: string) => `${grouped(n)} ${thing}${n === 1 ? '' : 's'}`
