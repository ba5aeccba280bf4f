import { File, ready } from 'h5wasm/node'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { gunzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { readWeights } from './index.ts'

// Files that the HDF5 library here cannot write, as Keras 3.15.1 and h5py 3.16.0 wrote them: a convolution of 1×1 with two inputs and
// three filters, kernel 1.5, -2, 65504, 2⁻²⁴, 0.333, -0 and bias 1, -0.5, 3.14159. Packed by gzip, as text.

/** `model.save('halves.h5')` in float16. */
const HALVES =
  'H4sIAAAAAAACA+1bQW8bRRSetWPXCQ11JFBbStFiBdRDlOI4TRFC4NKEGCmiFg1SRYWWsXdir7LeXXZmQ0IUiWO5cewxR44ce+yR' +
  'n4DEJUd+ArcwMzvj3dl4HUOiqCLzNdVk5o3fvH37vTezb52fW6ufz868NQMYKhUwBaogjWOBw/tqX8q/E60h2mei/bUgx0tcdkOM' +
  'V4V+s6h+cPOrtTXWOc5gaIhQUAEalxGttQdt1j5R6QB+L6jzBr6NXOsH5PT6BKd42fyP684JvmZ5fRW0BH1fB29QVm6jEGJrB4XY' +
  '8T06ftMw+CerQxsqSpyUU2Q2uL6m+L3C9XVgdxt59ql6Sik9BcWuWa4n9kfX97acHuB2gbH6/iwl+opj4veoHPfNCeO38nbcfqCp' +
  'rOOX9eV+UVbnUabu1Gnbc/0OdC1IIwr2kBX4vut4vSVbziN+YLloh3JbjXhjyFM1fltTcb9flvHbF7y/SuPkBnDhHgotDw4QBmPj' +
  'xDCGsZZu03FYkvEi+lNj4xtMHN/lifIOmDjvXKH/1x8+2jBSDlPmUTQW6/cW65nrpPCiQbAncsQwb1Ds17ouxJh7svaRWXuMvo+Q' +
  'Rxzo1hbMWpyH6Ph+TU7AygQSQseDHZeJSBghOmSTvQDxj9A7HXFJjV81V6gstrpJp7YpU7p7OattuT4kjaXaARWHqOdggkJkSwVe' +
  '5LpMwsmA6cDT7OV84QUR2WDizAIdSLp9C/cht/Up07RgLvOfpW9TVzG0gI7hAIaYDW5BF7NLpVTvITs1IJd12LKWK9f1A0LvNvWY' +
  'mHlAjc5a+pAG0tJqjht4lF2Yv+srp/h7y3FJ7PDGAl/MoxGNnR+5K+sLZp15EJPQsRFODwXQtmlWYAvtQNexmRE2JNDa8sMBJPxK' +
  '+9Cj2jB1HiZc7riQec8KIVH090I/Cph6OlCDXeLs8HlMCU09CHLPRxhZHQfixF3CWsdzGIepzeEo3y2m5CMcue76oU++9hxmeMaV' +
  'GHFKxIwSTIC73BFizI9IZnC8u9kFnNHgb1DoY9XQ8WsKN9EJkQtDsaqwn9szUsJvg0P2RkuFTmoC5jwmGZUnBKPiZJ1vNA/ifaYt' +
  'tpm8uMnblV6d1HUa/bcRCmxngJPUwbjfiRzXtmJu5eSwg4PhXpY+f+d5pJTZL+S+Xs7ZR67k7Dvyee9N0SbbxV2u8i6703R8Wsiv' +
  '582LyTI8Z1Sn9ZlMQ0NDQ0ND43Li8ZePVg1elRD1vCm1DpCtm2iMhgGKI+uk7dtAqR+fVid9bur3HLpOevI9x2+31HnJ840ar80z' +
  '5YHikHetm6reQPR/uaXWV9t1dd6u6D9vqPX+3WV13qHov1z5f90/WW/O+iupN8/yenNcr04Kzv+23nw9lSSm5fNxJckdBv+X8Efa' +
  'Bd4Red6cLB8dzut8pPNRko9k3DdNdZ6s7wzPDed8Lvnjtpo/sjzWyDuXjM4DlVrcvzM/WR74+32dB3QeOHkuac2r82SZVZRlz+lc' +
  'kuSBo3fVPJDlsUZeHoi/xyEdZ8j3yFOG4k8jc87IfE0rV16kjGCyOfOakFXBTAnMXBPyEr2DTF4oFIw4j8QMKhrNO/KEpOLJBTz3' +
  'FpL97JQvpkj+/fWe5pKCT8DL430DbN4DP4GPwYvWZ9olGhoaGhoal+9cGZ/rZN2qeG7nxA1xTsy+iHj2ivlj9HuAqqh39kH6eRvk' +
  '/72Dhn7eTj0FyeePF40s32K0z2ldWR/K1vHVvys4Wb+eMz8VNjbB8mtg+VgEvMwDk8bJh/d1nGicPU6OVi4mTrLvsc47Tv4BCi2K' +
  'vaA3AAA='
/** `model.save_weights('brain.weights.h5')` in bfloat16, which h5py keeps as two bytes without a type. */
const BRAIN =
  'H4sIAAAAAAACA+2av28TMRTH7btceqqKOCSQIAroKELKAkqawkiDaOghIRoBQ7b2So600pHrjxDRLWP4DxgZERNjNjr2T+jYkf+i' +
  'xLFfYru9a/ODhbzP4tp+V/t8Xz87z/7qrb68Np+ZJwzbJiniEJkzgfdEzUP9pkipSDsi/WFAOe3X3RblN8T/1+3evy2XmfWZBrRz' +
  'avHUJsgs4pWfV1haFXnQ07Gh2rX8/QOWhv5hwP4CXZbGbJcSU9GvI/Sbm1P1z/VLYvWLoH5l/YIf61i63jiVKbX77s36KiXGwKt3' +
  '5tR2QNhuRu2Xa6p2nshvW7P5/WDd0sdhQXgWSixyszd6Df9TwPJ3KO0/4QzG0FbGc0EabJqwTurfJ87um6jvZpP9VnVR9VtrL9Zf' +
  'UyI6qvevx0Gw9zloNHf8cKPA8uBuQQYfokaLVZiarrc+hpHfLDxNxZTD86LbpB5GW702/Faw79eDjd0oCnca9aUab3VI9Tr6EgRB' +
  'EARBEARBEAQZlcvi7vm7ED9AZhE9bpkXaSmj2rE40FItPo4DdhBfyk2oS+c+T/E8CHUp+6eTrGoH50GDOPaE7UI8HXT3S4un63FY' +
  '6Jf7WLXzRH47j+vORfP7+AGuOzi/z5/3dl3VDqZPQVtfShPNbzqY3yfa/P5yT8xzF79REnAupY/XuOdllrTYG/3yNK+j8H24Z6cp' +
  'qjwHKZxbmVp5XL3Za4zV3RJ1lsgbhkF5V7giTeo8hDeTGb5nuv+etebhbnCF97Sl9+R9cUfQ7XBd6i4m24NfdR6hVmWOVshRe61d' +
  '/PmMtNsr5PerEo4JgiAIgvzvnN9X8n0epVTbH466T8yKfWJ66vtEfseq8o/G4+L7Znr84rLf89+LUr+Rmf89P7iPqsW/ph2vi7sH' +
  '+WeZ5zeJrF+8v41cTb/gx7yirjcyVW+sx6NO82o7tgh85Yr4jZKAdUsfr3HjURlJBCw29RfwzWvGSDUAAA=='
/** h5py's `create_dataset('0', …, compression='lzf')` of 3×3×3×4 times 0.5: what the filter makes no smaller is kept without it. */
const LZF =
  'H4sIAAAAAAACA+2Zu04CQRSGZ/YiC2SDVBAbtpMSrezUBMxWStSCUuIlFkSNJkRNjC12lDyCpY/hI1BiJaVvgMzODDCzorsRE5X/' +
  'S8jhzDmZ2ez++fcyD355y00tpQjDcYhFFskkA0G/qOayfiAiFbEl4qMhx2lQy4vxrJhf79vfrVRY90BDrtOzeXQImEf8ymaVxZrI' +
  'pUqfDbWvUb85vrwa69H/5rrT9OubPD+1o+m3n4R+od+wflu22nd4ftZcPZqdfve2d8pMwVJ3nqn6ta5jEM8HqgmeXySj+cCbCx+A' +
  'D4R9oJ1U+5p1dhf7OR8oJlQf0HUM4vlALc3zazeaD/iL6vUH8+0DUk8dV+0ribiivWdtzMgHSml1Xl3HYJoPLPBzRmXOHZpafEA8' +
  'VoWiNWU8XM8HU2e9ghjzSM4huXtRt4dXkNUN0wgWTJNikFN5Ie9Y3SSN25PRvPaw9kTl84fH1zHsdnZ8CPJnjQ/Fi6ErY6Srtczn' +
  '/dL3usvQ0iTsvkE/uG9kYs7TLaj5V3qzcOoBAAAAAAAA4E/C3ufWSW9gvnQSdPgPAAAAAP8fSmxtf4LvMFGxQaB/942832Dw/QZH' +
  'zGfSV/GlWd/JbP2q8/EORAHYlOgoAAA='

const folder = mkdtempSync(path.join(tmpdir(), 'convoy-keras-cases-'))
beforeAll(async () => {
  await ready
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const at = (name: string) => path.join(folder, name)

function read(name: string, packed: string) {
  writeFileSync(at(name), gunzipSync(Buffer.from(packed, 'base64')))
  return readWeights(at(name))
}

describe('half floats of Keras', () => {
  it('are widened exactly from float16', async () => {
    const { format, layers } = await read('halves.h5', HALVES)
    expect(format).toBe('Keras 3, save')
    expect(layers.map(({ name }) => name)).toEqual(['conv1'])
    const [kernel, bias] = layers[0].tensors
    expect(kernel).toMatchObject({ kind: 'float16', shape: [1, 1, 2, 3] })
    expect([...kernel.values!]).toEqual([1.5, -2, 65504, 2 ** -24, 0.3330078125, -0])
    expect([...bias.values!]).toEqual([1, -0.5, 3.140625])
  })

  it('are widened exactly from bfloat16', async () => {
    const { format, layers } = await read('brain.weights.h5', BRAIN)
    expect(format).toBe('Keras 3, save_weights')
    const [kernel, bias] = layers[0].tensors
    expect(kernel).toMatchObject({ kind: 'bfloat16', shape: [1, 1, 2, 3] })
    expect([...kernel.values!]).toEqual([1.5, -2, 65536, 2 ** -24, 0.33203125, -0])
    expect([...bias.values!]).toEqual([1, -0.5, 3.140625])
  })
})

describe('what HDF5 holds and no network has', () => {
  it('is refused by the name of a filter that HDF5 itself has not, with what repacks it', async () => {
    await expect(read('lzf.weights.h5', LZF)).rejects.toMatchObject({
      code: 'E_WEIGHTS_FILE',
      message: expect.stringMatching(/lzf\.weights\.h5: conv2d\/0 is packed with the filter lzf/) as string,
      remedy: expect.stringContaining('h5repack') as string,
    })
  })

  it('is refused by the name of a weight of a compound type', async () => {
    const file = new File(at('compound.weights.h5'), 'w')
    const vars = file.create_group('layers').create_group('conv2d').create_group('vars')
    vars.create_dataset({
      name: '0',
      data: new Map(['real', 'imaginary'].map((part) => [part, new Float32Array(4)])),
      shape: [4],
    })
    file.close()
    await expect(readWeights(at('compound.weights.h5'))).rejects.toMatchObject({
      code: 'E_WEIGHTS_FILE',
      message: expect.stringMatching(/conv2d\/0 is of a compound/) as string,
    })
  })
})
