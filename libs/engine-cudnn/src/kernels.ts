/**
 * The CUDA kernels: all that a step does besides convolutions. One thread writes one place (or one pack of places) and
 * sums in a fixed order; there are no atomics, so the same bits come out each time. Compiled by NVRTC without
 * contraction to fused multiply-adds, so that any C++ compiler gives the same numbers.
 *
 * Tensors are NHWC. A tensor may have a rim of zeros, rows `above` and `below` and columns `left` and `right`, since cuDNN pads
 * both sides of an image alike and TensorFlow's `same` padding does not.
 */

/** Threads of a block. */
export const BLOCK = 256
/** Numbers that a thread reads and writes at once where the channels are a multiple of it: 16 bytes of bf16. */
export const PACK = 8
/** Rows that one thread of `sumRows` adds up. */
export const ROWS = 64

/** What a kernel calls the types of numbers. */
export const cudaTypes = { float32: 'float', bf16: 'bf16' } as const
type FloatType = keyof typeof cudaTypes
const floats = Object.keys(cudaTypes) as FloatType[]

const PRELUDE = `
struct bf16 { unsigned short bits; };

__device__ inline float get(float value) { return value; }
__device__ inline float get(bf16 value) { return __uint_as_float((unsigned)value.bits << 16); }
__device__ inline void put(float &to, float value) { to = value; }
// To the nearest, ties to even; NaN stays NaN.
__device__ inline void put(bf16 &to, float value) {
  unsigned b = __float_as_uint(value);
  to.bits = (b & 0x7fffffffu) > 0x7f800000u ? (b >> 16) | 0x40u : (b + 0x7fffu + ((b >> 16) & 1u)) >> 16;
}

template <class T, int V> struct alignas(V * sizeof(T)) Pack { T at[V]; };

__device__ inline void mix(unsigned &x, unsigned &y, int by) {
  x += y;
  y = ((y << by) | (y >> (32 - by))) ^ x;
}

// The index that i means in 0 ... size - 1, reflected at the borders without repeating them.
__device__ inline int reflect(int i, int size) {
  if (size == 1) return 0;
  int period = 2 * (size - 1), within = (i % period + period) % period;
  return within < size ? within : period - within;
}

__device__ inline unsigned position() { return blockIdx.x * blockDim.x + threadIdx.x; }
`

/**
 * The templates, by name, and their parameters. The first is how many threads have work. A type `From` or `To` is one of
 * `cudaTypes`; V is 1 or PACK, the numbers of a pack.
 */
const templates = {
  // Forward: to = dropout(relu(from + bias)), each part where it is asked for, in another type and with a rim of zeros.
  activate: {
    types: 'From To V',
    parameters:
      'unsigned size, const From *from, To *to, const float *bias, const unsigned char *mask, float scale, int relu, ' +
      'unsigned height, unsigned width, unsigned above, unsigned left, unsigned below, unsigned right, unsigned packs',
    body: `
  unsigned i = position();
  if (i >= size) return;
  unsigned c = i % packs, pixel = i / packs;
  unsigned across = left + width + right, down = above + height + below;
  // On the rim above and to the left these are below 0, which is huge.
  unsigned x = pixel % across - left, row = pixel / across;
  unsigned y = row % down - above, n = row / down;
  Pack<To, V> out;
  if (y < height && x < width) {
    unsigned j = ((n * height + y) * width + x) * packs + c;
    Pack<From, V> in = ((const Pack<From, V> *)from)[j];
    Pack<unsigned char, V> kept;
    if (mask) kept = ((const Pack<unsigned char, V> *)mask)[j];
    for (int v = 0; v < V; v++) {
      float value = get(in.at[v]);
      if (bias) value += bias[c * V + v];
      if (relu && value < 0.0f) value = 0.0f;
      if (mask) value = kept.at[v] ? value * scale : 0.0f;
      put(out.at[v], value);
    }
  } else {
    for (int v = 0; v < V; v++) put(out.at[v], 0.0f);
  }
  ((Pack<To, V> *)to)[i] = out;`,
  },
  // Its gradient: From is the type of what activate wrote (output) and of the gradient by it.
  activateGradient: {
    types: 'From To V',
    parameters:
      'unsigned size, const From *gradient, To *to, const From *output, const unsigned char *mask, float scale, ' +
      'unsigned height, unsigned width, unsigned above, unsigned left, unsigned below, unsigned right, unsigned packs',
    body: `
  unsigned i = position();
  if (i >= size) return;
  unsigned c = i % packs, pixel = i / packs;
  unsigned x = pixel % width, row = pixel / width;
  unsigned y = row % height, n = row / height;
  unsigned j = ((n * (above + height + below) + above + y) * (left + width + right) + left + x) * packs + c;
  Pack<From, V> in = ((const Pack<From, V> *)gradient)[j];
  // With ReLU: what it let through and the mask kept is what came out above 0.
  Pack<From, V> after;
  if (output) after = ((const Pack<From, V> *)output)[j];
  Pack<unsigned char, V> kept;
  if (mask) kept = ((const Pack<unsigned char, V> *)mask)[i];
  Pack<To, V> out;
  for (int v = 0; v < V; v++) {
    bool passes = (!output || get(after.at[v]) > 0.0f) && (!mask || kept.at[v]);
    put(out.at[v], passes ? get(in.at[v]) * scale : 0.0f);
  }
  ((Pack<To, V> *)to)[i] = out;`,
  },
  // A dropout mask as masks.ts draws it: two words of Threefry (libs/random) for each thread.
  drawMask: {
    types: '',
    parameters:
      'unsigned size, const unsigned *keys, unsigned char *to, unsigned elements, unsigned bits, unsigned dropped',
    body: `
  unsigned i = position();
  if (i >= size) return;
  unsigned k0 = keys[0], k1 = keys[1], k2 = 0x1bd11bdau ^ k0 ^ k1, x = i + k0, y = k1;
  mix(x, y, 13); mix(x, y, 15); mix(x, y, 26); mix(x, y, 6); x += k1; y += k2 + 1u;
  mix(x, y, 17); mix(x, y, 29); mix(x, y, 16); mix(x, y, 24); x += k2; y += k0 + 2u;
  mix(x, y, 13); mix(x, y, 15); mix(x, y, 26); mix(x, y, 6); x += k0; y += k1 + 3u;
  mix(x, y, 17); mix(x, y, 29); mix(x, y, 16); mix(x, y, 24); x += k1; y += k2 + 4u;
  mix(x, y, 13); mix(x, y, 15); mix(x, y, 26); mix(x, y, 6); x += k2; y += k0 + 5u;
  unsigned each = 32u / bits, low = (1u << bits) - 1u, first = 2u * each * i;
  // Four flags are one word to write.
  for (unsigned e = 0; e < 2u * each && first + e < elements; e += 4) {
    unsigned flags = 0;
    for (unsigned f = e; f < e + 4; f++) {
      unsigned value = ((f < each ? x : y) >> (f % each * bits)) & low;
      if (value >= dropped) flags |= 1u << (8u * (f - e));
    }
    if (first + e + 4 <= elements) *(unsigned *)(to + first + e) = flags;
    else for (unsigned f = 0; first + e + f < elements; f++) to[first + e + f] = flags >> (8u * f);
  }`,
  },
  // The network's input of stored images, as ImageFiller of libs/data makes it: varied as said there, and looked up in a table.
  fillImages: {
    types: '',
    parameters:
      'unsigned size, const unsigned char *pixels, const float *table, const int *variations, float *to, ' +
      'int height, int width, int channels',
    body: `
  unsigned i = position();
  if (i >= size) return;
  int c = i % channels, x = i / channels % width, y = i / channels / width % height;
  unsigned n = i / channels / width / height;
  const int *variation = variations + 3 * n;
  y = reflect(y - variation[1], height);
  x = reflect(x - variation[2], width);
  if (variation[0]) x = width - 1 - x;
  to[i] = table[c * 256 + pixels[((n * height + y) * width + x) * channels + c]];`,
  },
  // to[column, row] = from[row, column]: kernels are HWIO at the caller's and OHWI at cuDNN's.
  transpose: {
    types: 'From To',
    parameters: 'unsigned size, const From *from, To *to, unsigned rows, unsigned columns',
    body: `
  unsigned i = position();
  if (i >= size) return;
  put(to[i], get(from[(i % rows) * columns + i / rows]));`,
  },
  // to[part, column] = sum over ROWS rows. Repeated until one row is left, it sums all.
  sumRows: {
    types: 'From',
    parameters: 'unsigned size, const From *from, float *to, unsigned rows, unsigned columns',
    body: `
  unsigned i = position();
  if (i >= size) return;
  unsigned column = i % columns, first = i / columns * ${ROWS}u;
  unsigned last = first + ${ROWS}u < rows ? first + ${ROWS}u : rows;
  float sum = 0.0f;
  for (unsigned row = first; row < last; row++) sum += get(from[row * columns + column]);
  to[i] = sum;`,
  },
  // mode 0: largest, taken receiving where in the window it was; 1: average of what lies inside the image; 2: sum.
  pool: {
    types: 'From',
    parameters:
      'unsigned size, const From *from, From *to, int *taken, int mode, int height, int width, int channels, ' +
      'int rows, int columns, int down, int across, int stepDown, int stepAcross, int above, int left',
    body: `
  unsigned i = position();
  if (i >= size) return;
  int c = i % channels, ox = i / channels % columns, oy = i / channels / columns % rows;
  unsigned n = i / channels / columns / rows;
  float sum = 0.0f, largest = 0.0f;
  int count = 0, at = -1;
  for (int ky = 0; ky < down; ky++) {
    int y = oy * stepDown + ky - above;
    if (y < 0 || y >= height) continue;
    for (int kx = 0; kx < across; kx++) {
      int x = ox * stepAcross + kx - left;
      if (x < 0 || x >= width) continue;
      float value = get(from[((n * height + y) * width + x) * channels + c]);
      sum += value;
      count++;
      // A NaN wins, so that it is not lost.
      if (at < 0 || value > largest || value != value) {
        largest = value;
        at = ky * across + kx;
      }
    }
  }
  if (mode == 0) taken[i] = at;
  put(to[i], mode == 0 ? largest : mode == 1 ? sum / count : sum);`,
  },
  // Gathers what each input's windows send back.
  poolGradient: {
    types: 'From',
    parameters:
      'unsigned size, const From *gradient, From *to, const int *taken, int mode, int height, int width, ' +
      'int channels, int rows, int columns, int down, int across, int stepDown, int stepAcross, int above, int left',
    body: `
  unsigned i = position();
  if (i >= size) return;
  int c = i % channels, x = i / channels % width, y = i / channels / width % height;
  unsigned n = i / channels / width / height;
  int firstRow = y + above - down + 1, firstColumn = x + left - across + 1;
  firstRow = firstRow <= 0 ? 0 : (firstRow + stepDown - 1) / stepDown;
  firstColumn = firstColumn <= 0 ? 0 : (firstColumn + stepAcross - 1) / stepAcross;
  float sum = 0.0f;
  for (int oy = firstRow; oy < rows && oy * stepDown <= y + above; oy++) {
    int top = oy * stepDown - above;
    int inRows = (top + down < height ? top + down : height) - (top > 0 ? top : 0);
    for (int ox = firstColumn; ox < columns && ox * stepAcross <= x + left; ox++) {
      int start = ox * stepAcross - left;
      int inColumns = (start + across < width ? start + across : width) - (start > 0 ? start : 0);
      unsigned o = ((n * rows + oy) * columns + ox) * channels + c;
      if (mode == 0 && taken[o] != (y - top) * across + (x - start)) continue;
      float value = get(gradient[o]);
      sum += mode == 1 ? value / (inRows * inColumns) : value;
    }
  }
  put(to[i], sum);`,
  },
  // One sample's loss and whether its largest logit (the first of equals) is its label's, and the gradient by the logits.
  // In double precision, as loss.ts, whose formulas these are.
  crossEntropy: {
    types: '',
    parameters:
      'unsigned size, const float *logits, const int *labels, float *gradient, double *results, int classes, int sigmoid, ' +
      'double own, double other',
    body: `
  unsigned i = position();
  if (i >= size) return;
  const float *z = logits + i * classes;
  float *to = gradient + i * classes;
  int label = labels[i], best = 0;
  for (int c = 1; c < classes; c++) if (z[c] > z[best]) best = c;
  double loss = 0.0;
  if (sigmoid) {
    for (int c = 0; c < classes; c++) {
      double value = z[c], target = c == label ? own : other, small = exp(-fabs(value));
      loss += (value < 0.0 ? 0.0 : value) + log1p(small) - target * value;
      to[c] = (float)((value >= 0.0 ? 1.0 / (1.0 + small) : small / (1.0 + small)) - target);
    }
  } else {
    double largest = z[best], sum = 0.0;
    for (int c = 0; c < classes; c++) sum += exp(z[c] - largest);
    loss = log(sum);
    for (int c = 0; c < classes; c++) {
      double target = c == label ? own : other;
      to[c] = (float)(exp(z[c] - largest) / sum - target);
      if (target > 0.0) loss -= target * (z[c] - largest);
    }
  }
  results[2 * i] = loss;
  results[2 * i + 1] = best == label ? 1.0 : 0.0;`,
  },
} as const

export type KernelName = keyof typeof templates

/** The types that a template is made for. */
function variants(types: string): Record<string, string>[] {
  let list: Record<string, string>[] = [{}]
  for (const name of types.split(' ').filter(Boolean)) {
    const values = name === 'V' ? ['1', String(PACK)] : floats
    list = list.flatMap((made) => values.map((value) => ({ ...made, [name]: value })))
  }
  return list
}

/** The name of a kernel made for some types, such as `activate_bf16_float32_8`. */
export function entry(name: KernelName, ...types: readonly (FloatType | number)[]): string {
  return [name, ...types].join('_')
}

/** A parameter as it is passed: an address, a 32-bit whole number, or a float or double. */
export type ParameterKind = 'pointer' | 'int' | 'float' | 'double'

/** Every kernel by its name, with what it is passed. */
export const entries: ReadonlyMap<string, readonly ParameterKind[]> = new Map(
  Object.entries(templates).flatMap(([name, { types, parameters }]) =>
    variants(types).map((variant) => [
      [name, ...Object.values(variant)].join('_'),
      parameters
        .split(', ')
        .map((parameter) =>
          parameter.includes('*')
            ? 'pointer'
            : ((/^(float|double) /.exec(parameter)?.[1] as 'float' | 'double' | undefined) ?? 'int'),
        ),
    ]),
  ),
)

/** The whole program in CUDA C++. */
export const source: string =
  PRELUDE +
  Object.entries(templates)
    .flatMap(([name, { types, parameters, body }]) =>
      variants(types).map((variant) => {
        let text = `extern "C" __global__ void ${[name, ...Object.values(variant)].join('_')}(${parameters}) {${body}\n}\n`
        for (const [type, value] of Object.entries(variant))
          text = text.replace(new RegExp(`\\b${type}\\b`, 'g'), cudaTypes[value as FloatType] ?? value)
        return text
      }),
    )
    .join('\n')
