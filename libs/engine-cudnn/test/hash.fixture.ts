import { createHash } from 'node:crypto'
import { buildModel } from '@convoy/model'
import { drawLeaf } from '@convoy/engine'
import { createCudnnEngine } from '../src/engine.ts'

/** Prints the SHA-256 of the gradients of three leaves; the argument is the precision. */

const engine = await createCudnnEngine({ precision: process.argv[2] as 'bf16', device: 0 })
const model = buildModel('all-cnn-c', { input: [16, 16, 3], classes: 10, width: 0.25 })
const compiled = await engine.compile(model, 4)
const hash = createHash('sha256')
for (const seed of [1, 2, 3]) {
  const { parameters, batch, masks } = drawLeaf(model, 4, seed)
  const gradient = new Float32Array(parameters.length)
  compiled.load(parameters)
  compiled.gradient(batch, masks, gradient)
  hash.update(new Uint8Array(gradient.buffer))
}
engine.dispose()
console.log(hash.digest('hex'))
