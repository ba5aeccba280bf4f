import { writeFileSync } from 'node:fs'
import path from 'node:path'
import { scratch } from '../convoy.ts'

/** A folder of scratch with so many images and ten to test on, as CIFAR-10 in binary: whoever reads it has the same data set. */
export function imageFolder(images: number): { folder: string; remove: () => void } {
  const { folder, remove } = scratch()
  const file = (name: string, count: number) => {
    const samples = Buffer.alloc(count * 3073, 128)
    for (let i = 0; i < count; i++) samples.fill(i % 10, i * 3073, i * 3073 + 1 + (i % 3072))
    writeFileSync(path.join(folder, name), samples)
  }
  file('data_batch_1.bin', images)
  file('test_batch.bin', 10)
  return { folder, remove }
}
