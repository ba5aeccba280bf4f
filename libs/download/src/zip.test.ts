import { zipSync } from 'fflate'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { beforeEach, describe, expect, it } from 'vitest'
import { openZip, unzip } from './zip.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'convoy-zip-'))
  return () => rmSync(folder, { recursive: true })
})

const text = 'some text '.repeat(1000)
const attrs = (0o120777 << 16) >>> 0
/** An archive: one file packed, one as it is, a folder and a link. */
const archive = () =>
  Buffer.from(
    zipSync({
      'in/packed.txt': Buffer.from(text),
      'plain.txt': [Buffer.from(text), { level: 0 }],
      'empty/': new Uint8Array(),
      link: [Buffer.from('plain.txt'), { os: 3, attrs }],
    }),
  )
/** Where the list of members begins. */
const listOf = (bytes: Buffer) => bytes.readUInt32LE(bytes.length - 6)
const save = (bytes: Uint8Array) => {
  const file = path.join(folder, 'a.zip')
  writeFileSync(file, bytes)
  return file
}

/** What an archive holds, by name. */
async function contents(bytes: Uint8Array): Promise<Record<string, string>> {
  const { members, close } = await openZip(save(bytes), 10)
  const found: Record<string, string> = {}
  for (const member of members) found[`${member.kind} ${member.name}`] = (await member.bytes()).toString()
  close()
  return found
}

describe('#openZip', () => {
  const all = {
    'file in/packed.txt': text,
    'file plain.txt': text,
    'folder empty/': '',
    'link link': 'plain.txt',
  }

  it('reads files, folders and links', async () => {
    expect(await contents(archive())).toEqual(all)
  })

  it('reads ZIP64 (APPNOTE.TXT 4.3.14)', async () => {
    const bytes = archive()
    const [list, end] = [listOf(bytes), Buffer.from(bytes.subarray(-22))]
    const [record, locator] = [Buffer.alloc(56), Buffer.alloc(20)]
    record.write('PK\x06\x06')
    record.writeBigUInt64LE(44n, 4)
    for (const at of [24, 32]) record.writeBigUInt64LE(4n, at)
    record.writeBigUInt64LE(BigInt(bytes.length - 22 - list), 40)
    record.writeBigUInt64LE(BigInt(list), 48)
    locator.write('PK\x06\x07')
    locator.writeBigUInt64LE(BigInt(bytes.length - 22), 8)
    locator.writeUInt32LE(1, 16)
    end.fill(0xff, 8, 20)
    expect(await contents(Buffer.concat([bytes.subarray(0, -22), record, locator, end]))).toEqual(all)
  })

  it('refuses bytes that are not those of the CRC-32, and a size that is not the one that was said', async () => {
    const damaged = archive()
    damaged[damaged.indexOf('some text')] ^= 1
    await expect(contents(damaged)).rejects.toThrow(/its CRC-32 is another/)
    const liar = archive()
    liar.writeUInt32LE(100, listOf(liar) + 24)
    await expect(contents(liar)).rejects.toThrow(/too many bytes/)
  })

  it('refuses what is encrypted, leads out, has too many members, or is none', async () => {
    const encrypted = archive()
    encrypted[listOf(encrypted) + 8] |= 1
    await expect(contents(encrypted)).rejects.toThrow(/it is encrypted/)
    await expect(contents(zipSync({ '../a': new Uint8Array(1) }))).rejects.toThrow(/relative path: \.\.\/a/)
    await expect(openZip(save(archive()), 3)).rejects.toThrow(/it has 4 files, more than 3/)
    await expect(contents(archive().subarray(0, -30))).rejects.toThrow(/end of central directory/i)
  })
})

describe('#unzip', () => {
  const only = (name: string) => (name === 'in/packed.txt' ? path.join(folder, 'out', 'b.txt') : undefined)

  it('writes the files that are wanted', async () => {
    expect(await unzip(save(archive()), only, () => {})).toEqual([path.join(folder, 'out', 'b.txt')])
    expect(readFileSync(path.join(folder, 'out', 'b.txt'), 'utf8')).toBe(text)
    expect(existsSync(path.join(folder, 'plain.txt'))).toBe(false)
  })
})
