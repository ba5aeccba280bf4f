// Loaded into a process (`node --import`), this makes its disk slow, full or read-only for as long as the file that
// FAULTY_DISK names says so: {mode, milliseconds, files, again}; with `files` for those alone whose name ends so, with `again` for
// checkpoints of that name alone that were written before. Root can write anywhere, and a real disk cannot be filled by a test.
import { existsSync, readFileSync } from 'node:fs'
import fs from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { setTimeout as sleep } from 'node:timers/promises'

const state = () => {
  try {
    return JSON.parse(readFileSync(process.env['FAULTY_DISK'], 'utf8'))
  } catch {
    return {}
  }
}
const fail = (code, text) => Object.assign(new Error(`${code}: ${text}`), { code })

const { open } = fs
const probe = await open('/dev/null')
const handle = Object.getPrototypeOf(probe)
await probe.close()
const { write } = handle
const names = new WeakMap()

/** Writes the first half; then waits, or finds that there is no more room. */
async function writeSlowly(bytes, offset, length, position) {
  const { mode, milliseconds = 0, files = '', again } = state()
  const name = names.get(this) ?? ''
  const whole = name.replace(/\.\d+\.tmp$/, '')
  const struck = name.endsWith(files) && (again === undefined || (whole.endsWith(again) && existsSync(whole)))
  if (mode === undefined || !struck) return write.call(this, bytes, offset, length, position)
  if (mode === 'readOnly') throw fail('EROFS', 'read-only file system, write')
  const half = length >> 1
  await write.call(this, bytes, offset, half, position)
  if (mode === 'full') throw fail('ENOSPC', 'no space left on device, write')
  await sleep(milliseconds)
  const at = position === null || position === undefined ? position : position + half
  await write.call(this, bytes, offset + half, length - half, at)
  return { bytesWritten: length, buffer: bytes }
}

handle.write = writeSlowly
handle.writeFile = async function (bytes) {
  await writeSlowly.call(this, bytes, 0, bytes.length, null)
}
fs.open = async (file, flags, ...rest) => {
  if (state().mode === 'readOnly' && flags !== undefined && flags !== 'r')
    throw fail('EROFS', `read-only file system, open '${file}'`)
  const opened = await open(file, flags, ...rest)
  names.set(opened, String(file))
  return opened
}
syncBuiltinESMExports()
