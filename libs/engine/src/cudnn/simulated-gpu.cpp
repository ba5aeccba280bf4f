// The driver, cuDNN and NVRTC of a machine with one GPU, as far as Convoy calls them, on the CPU: for tests on machines
// without a GPU. simulated.ts puts the prelude, the very CUDA source of kernels.ts and their table before this file.
//
// Memory is the host's and starts as NaN. A call on a stream is done at once, or recorded while the stream is captured.
// Convolutions are plain loops; float32 factors are rounded to TF32 where the descriptor allows it. Whatever is not as
// CUDA's and cuDNN's documentation wants it (types, layouts, shapes, addresses) is refused with their codes.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <string>
#include <vector>

typedef std::function<int()> Work;

static const int INVALID_VALUE = 1, OUT_OF_MEMORY = 2, ILLEGAL_ADDRESS = 700;
static const int BAD_PARAM = 2000, NOT_SUPPORTED = 3000;
static const size_t LARGEST = size_t(1) << 30;

// How it is to misbehave: "", "no-device", "old", "wrong", "unsteady", "few-algorithms", "no-algorithm", "unrecordable".
static std::string fault;
extern "C" void simulate(const char *what) { fault = what; }

// What was called, for tests to ask.
static int launches = 0, live = 0;
extern "C" int graph_launches() { return launches; }
extern "C" int live_objects() { return live; }

static std::map<char *, size_t> allocations;
static bool inside(const void *address, size_t bytes = 1) {
  auto next = allocations.upper_bound((char *)address);
  if (next == allocations.begin()) return false;
  auto block = std::prev(next);
  return (char *)address + bytes <= block->first + block->second;
}

struct Stream { std::vector<Work> *recording = nullptr; };
static int submit(void *stream, Work work) {
  if (!stream) return INVALID_VALUE;
  auto &recording = ((Stream *)stream)->recording;
  if (!recording) return work();
  recording->push_back(work);
  return 0;
}

extern "C" {

int cuInit(unsigned) { return 0; }
int cuDriverGetVersion(int *version) { *version = 12090; return 0; }
int cuGetErrorName(int error, const char **name) {
  *name = error == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : error == ILLEGAL_ADDRESS ? "CUDA_ERROR_ILLEGAL_ADDRESS" : "CUDA_ERROR_INVALID_VALUE";
  return 0;
}
int cuDeviceGetCount(int *count) { *count = fault == "no-device" ? 0 : 1; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return ordinal == 0 ? 0 : INVALID_VALUE; }
int cuDeviceGetName(char *name, int length, int) { snprintf(name, length, "Simulated GPU"); return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int) {
  *value = attribute == 75 ? (fault == "old" ? 7 : 9) : attribute == 76 ? 0 : -1;
  return 0;
}
int cuDevicePrimaryCtxRetain(void **context, int) { *context = (void *)1; live++; return 0; }
int cuDevicePrimaryCtxRelease_v2(int) { live--; return 0; }
int cuCtxSetCurrent(void *context) { return context == (void *)1 ? 0 : INVALID_VALUE; }

int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
  if (bytes == 0) return INVALID_VALUE;
  if (bytes > LARGEST) return OUT_OF_MEMORY;
  char *block = (char *)aligned_alloc(256, (bytes + 255) / 256 * 256);
  memset(block, 0xff, bytes);
  allocations[block] = bytes;
  *address = (uint64_t)block;
  live++;
  return 0;
}
int cuMemFree_v2(uint64_t address) {
  if (allocations.erase((char *)address) == 0) return INVALID_VALUE;
  free((void *)address);
  live--;
  return 0;
}
int cuMemHostAlloc(void **address, size_t bytes, unsigned) { *address = malloc(bytes); live++; return 0; }
int cuMemFreeHost(void *address) { free(address); live--; return 0; }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream) {
  if (!inside((void *)to, bytes) || inside(from)) return INVALID_VALUE;
  return submit(stream, [=] { memcpy((void *)to, from, bytes); return 0; });
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream) {
  if (!inside((void *)from, bytes) || inside(to)) return INVALID_VALUE;
  return submit(stream, [=] { memcpy(to, (void *)from, bytes); return 0; });
}

int cuStreamCreate(void **stream, unsigned) { *stream = new Stream; live++; return 0; }
int cuStreamDestroy_v2(void *stream) { delete (Stream *)stream; live--; return 0; }
int cuStreamSynchronize(void *stream) { return ((Stream *)stream)->recording ? INVALID_VALUE : 0; }
int cuStreamBeginCapture_v2(void *stream, int mode) {
  if (mode != 1 || ((Stream *)stream)->recording) return INVALID_VALUE;
  ((Stream *)stream)->recording = new std::vector<Work>;
  return 0;
}
int cuStreamEndCapture(void *stream, void **graph) {
  *graph = ((Stream *)stream)->recording;
  ((Stream *)stream)->recording = nullptr;
  live++;
  return *graph ? 0 : INVALID_VALUE;
}
int cuGraphInstantiateWithFlags(void **executable, void *graph, uint64_t) {
  *executable = new std::vector<Work>(*(std::vector<Work> *)graph);
  live++;
  return 0;
}
int cuGraphLaunch(void *executable, void *stream) {
  launches++;
  for (auto &work : *(std::vector<Work> *)executable)
    if (int status = submit(stream, work)) return status;
  return 0;
}
int cuGraphExecDestroy(void *executable) { delete (std::vector<Work> *)executable; live--; return 0; }
int cuGraphDestroy(void *graph) { delete (std::vector<Work> *)graph; live--; return 0; }

int cuModuleLoadData(void **module, const void *image) {
  *module = (void *)2;
  live++;
  return memcmp(image, "machine code for sm_90", 22) == 0 || fault == "old" ? 0 : INVALID_VALUE;
}
int cuModuleUnload(void *) { live--; return 0; }
int cuModuleGetFunction(void **function, void *, const char *name) {
  auto found = kernels.find(name);
  if (found == kernels.end()) return INVALID_VALUE;
  *function = (void *)&found->second;
  return 0;
}
int cuLaunchKernel(void *function, unsigned x, unsigned y, unsigned z, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *stream, void **parameters, void **extra) {
  if (y != 1 || z != 1 || by != 1 || bz != 1 || shared != 0 || extra || x == 0 || bx == 0 || bx > 1024) return INVALID_VALUE;
  Kernel &kernel = *(Kernel *)function;
  for (size_t i = 0; i < kernel.pointers.size(); i++) {
    void *address = *(void **)parameters[i];
    if (kernel.pointers[i] && address && !inside(address)) return ILLEGAL_ADDRESS;
  }
  // The values are taken now, as CUDA does.
  Bound bound = kernel.bind(parameters);
  return submit(stream, [=] { bound(x, bx); return 0; });
}

int nvrtcVersion(int *major, int *minor) { *major = 12; *minor = 9; return 0; }
const char *nvrtcGetErrorString(int) { return "NVRTC_ERROR_INVALID_INPUT"; }
int nvrtcCreateProgram(void **program, const char *source, const char *, int headers, const char **, const char **) {
  *program = new std::string(strstr(source, "crossEntropy") && headers == 0 ? "" : "no");
  return 0;
}
int nvrtcCompileProgram(void *program, int count, const char **options) {
  std::string &code = *(std::string *)program;
  if (code == "no") return 6;
  for (int i = 0; i < count; i++)
    if (strncmp(options[i], "--gpu-architecture=", 19) == 0) code = std::string("machine code for ") + (options[i] + 19);
  return code.empty() ? 5 : 0;
}
int nvrtcGetProgramLogSize(void *, size_t *bytes) { *bytes = 1; return 0; }
int nvrtcGetProgramLog(void *, char *log) { *log = 0; return 0; }
int nvrtcGetCUBINSize(void *program, size_t *bytes) { *bytes = ((std::string *)program)->size() + 1; return 0; }
int nvrtcGetCUBIN(void *program, char *code) { strcpy(code, ((std::string *)program)->c_str()); return 0; }
int nvrtcGetPTXSize(void *program, size_t *bytes) { return nvrtcGetCUBINSize(program, bytes); }
int nvrtcGetPTX(void *program, char *code) { return nvrtcGetCUBIN(program, code); }
int nvrtcDestroyProgram(void **program) { delete (std::string *)*program; return 0; }

struct Images { int format, type, n, c, h, w; };
struct Filter { int type, format, k, c, h, w; };
struct Convolution { int padding[2], stride[2], mode, compute, math; };
struct Handle { void *stream; };

size_t cudnnGetVersion() { return 92800; }
const char *cudnnGetErrorString(int status) { return status == BAD_PARAM ? "CUDNN_STATUS_BAD_PARAM" : "CUDNN_STATUS_NOT_SUPPORTED"; }
int cudnnCreate(void **handle) { *handle = new Handle(); live++; return 0; }
int cudnnDestroy(void *handle) { delete (Handle *)handle; live--; return 0; }
int cudnnSetStream(void *handle, void *stream) { ((Handle *)handle)->stream = stream; return 0; }
int cudnnCreateTensorDescriptor(void **to) { *to = new Images(); live++; return 0; }
int cudnnSetTensor4dDescriptor(void *d, int format, int type, int n, int c, int h, int w) { *(Images *)d = {format, type, n, c, h, w}; return 0; }
int cudnnDestroyTensorDescriptor(void *d) { delete (Images *)d; live--; return 0; }
int cudnnCreateFilterDescriptor(void **to) { *to = new Filter(); live++; return 0; }
int cudnnSetFilter4dDescriptor(void *d, int type, int format, int k, int c, int h, int w) { *(Filter *)d = {type, format, k, c, h, w}; return 0; }
int cudnnDestroyFilterDescriptor(void *d) { delete (Filter *)d; live--; return 0; }
int cudnnCreateConvolutionDescriptor(void **to) { *to = new Convolution(); live++; return 0; }
int cudnnSetConvolution2dDescriptor(void *d, int padH, int padW, int u, int v, int dilationH, int dilationW, int mode, int compute) {
  *(Convolution *)d = {{padH, padW}, {u, v}, mode, compute, 0};
  return dilationH == 1 && dilationW == 1 ? 0 : NOT_SUPPORTED;
}
int cudnnSetConvolutionMathType(void *d, int math) { ((Convolution *)d)->math = math; return 0; }
int cudnnDestroyConvolutionDescriptor(void *d) { delete (Convolution *)d; live--; return 0; }
int cudnnGetConvolution2dForwardOutputDim(void *d, void *x, void *w, int *n, int *c, int *rows, int *columns) {
  Convolution &v = *(Convolution *)d;
  Images &in = *(Images *)x;
  Filter &k = *(Filter *)w;
  *n = in.n;
  *c = k.k;
  *rows = (in.h + 2 * v.padding[0] - k.h) / v.stride[0] + 1;
  *columns = (in.w + 2 * v.padding[1] - k.w) / v.stride[1] + 1;
  return 0;
}
}

// Whether cuDNN takes such a convolution: NHWC, the three of one type, sums in float, shapes that fit.
static int supported(Images &x, Filter &w, Convolution &c, Images &y) {
  int n, k, rows, columns;
  cudnnGetConvolution2dForwardOutputDim(&c, &x, &w, &n, &k, &rows, &columns);
  if (n != y.n || k != y.c || rows != y.h || columns != y.w || x.c != w.c) return BAD_PARAM;
  if (x.format != 1 || w.format != 1 || y.format != 1 || c.mode != 1 || c.compute != 0) return NOT_SUPPORTED;
  return x.type == w.type && w.type == y.type && (x.type == 0 || x.type == 9) ? 0 : NOT_SUPPORTED;
}

static const size_t WORKSPACE = 1000;

static int workspace(int status, int algorithm, bool forward, size_t *bytes) {
  *bytes = WORKSPACE;
  if (status) return status;
  if (fault == "no-algorithm") return NOT_SUPPORTED;
  if (forward && algorithm == 0) return 0;
  if (forward && fault == "few-algorithms") return NOT_SUPPORTED;
  return algorithm == 1 ? 0 : NOT_SUPPORTED;
}

static float tf32(float value) {
  unsigned bits = __float_as_uint(value);
  return (bits & 0x7f800000u) == 0x7f800000u ? value : __uint_as_float((bits + 0xfffu + ((bits >> 13) & 1u)) & 0xffffe000u);
}

enum Pass { FORWARD, IMAGE, KERNEL };

template <class T> static void convolve(Pass pass, Images xd, Filter wd, Convolution c, Images yd, T *x, T *w, T *y) {
  bool rounds = sizeof(T) == 4 && c.math == 0;
  auto load = [=](const T *from, size_t size) {
    std::vector<float> values(size);
    for (size_t i = 0; i < size; i++) values[i] = rounds ? tf32(get(from[i])) : get(from[i]);
    return values;
  };
  size_t sizes[] = {size_t(xd.n) * xd.h * xd.w * xd.c, size_t(wd.k) * wd.h * wd.w * wd.c, size_t(yd.n) * yd.h * yd.w * yd.c};
  std::vector<float> image = load(x, sizes[0]), kernel = load(w, sizes[1]), output = load(y, sizes[2]);
  std::vector<float> &target = pass == FORWARD ? output : pass == IMAGE ? image : kernel;
  target.assign(target.size(), 0.0f);
  for (int n = 0; n < yd.n; n++)
    for (int oy = 0; oy < yd.h; oy++)
      for (int ox = 0; ox < yd.w; ox++)
        for (int ky = 0; ky < wd.h; ky++)
          for (int kx = 0; kx < wd.w; kx++) {
            int iy = oy * c.stride[0] + ky - c.padding[0], ix = ox * c.stride[1] + kx - c.padding[1];
            if (iy < 0 || ix < 0 || iy >= xd.h || ix >= xd.w) continue;
            float *in = &image[((size_t(n) * xd.h + iy) * xd.w + ix) * xd.c];
            float *out = &output[((size_t(n) * yd.h + oy) * yd.w + ox) * yd.c];
            for (int f = 0; f < wd.k; f++) {
              float *factors = &kernel[((size_t(f) * wd.h + ky) * wd.w + kx) * wd.c];
              for (int i = 0; i < wd.c; i++) {
                if (pass == FORWARD) out[f] += in[i] * factors[i];
                else if (pass == IMAGE) in[i] += out[f] * factors[i];
                else factors[i] += out[f] * in[i];
              }
            }
          }
  static int calls = 0;
  if (fault == "wrong" && pass == KERNEL) target[0] += 1.0f;
  if (fault == "unsteady") target[0] *= 1.0f + 1e-6f * ++calls;
  T *to = pass == FORWARD ? y : pass == IMAGE ? x : w;
  for (size_t i = 0; i < target.size(); i++) put(to[i], target[i]);
}

static int run(Pass pass, void *handle, const float *alpha, Images xd, const void *x, Filter wd, const void *w, Convolution c, int algorithm, void *scratch, size_t bytes, const float *beta, Images yd, const void *y) {
  if (int status = supported(xd, wd, c, yd)) return status;
  if (*alpha != 1.0f || *beta != 0.0f || bytes < WORKSPACE || !inside(scratch, bytes)) return BAD_PARAM;
  if (algorithm != 1 && !(pass == FORWARD && algorithm == 0)) return NOT_SUPPORTED;
  if (!inside(x) || !inside(w) || !inside(y)) return BAD_PARAM;
  if (fault == "unrecordable" && ((Stream *)((Handle *)handle)->stream)->recording) return NOT_SUPPORTED;
  return submit(((Handle *)handle)->stream, [=] {
    if (xd.type == 9) convolve(pass, xd, wd, c, yd, (bf16 *)x, (bf16 *)w, (bf16 *)y);
    else convolve(pass, xd, wd, c, yd, (float *)x, (float *)w, (float *)y);
    memset(scratch, 0xee, bytes);
    return 0;
  });
}

extern "C" {
int cudnnGetConvolutionForwardWorkspaceSize(void *, Images *x, Filter *w, Convolution *c, Images *y, int algorithm, size_t *bytes) {
  return workspace(supported(*x, *w, *c, *y), algorithm, true, bytes);
}
int cudnnGetConvolutionBackwardDataWorkspaceSize(void *, Filter *w, Images *dy, Convolution *c, Images *dx, int algorithm, size_t *bytes) {
  return workspace(supported(*dx, *w, *c, *dy), algorithm, false, bytes);
}
int cudnnGetConvolutionBackwardFilterWorkspaceSize(void *, Images *x, Images *dy, Convolution *c, Filter *dw, int algorithm, size_t *bytes) {
  return workspace(supported(*x, *dw, *c, *dy), algorithm, false, bytes);
}
int cudnnConvolutionForward(void *handle, float *alpha, Images *xd, void *x, Filter *wd, void *w, Convolution *c, int algorithm, void *scratch, size_t bytes, float *beta, Images *yd, void *y) {
  return run(FORWARD, handle, alpha, *xd, x, *wd, w, *c, algorithm, scratch, bytes, beta, *yd, y);
}
int cudnnConvolutionBackwardData(void *handle, float *alpha, Filter *wd, void *w, Images *dyd, void *dy, Convolution *c, int algorithm, void *scratch, size_t bytes, float *beta, Images *dxd, void *dx) {
  return run(IMAGE, handle, alpha, *dxd, dx, *wd, w, *c, algorithm, scratch, bytes, beta, *dyd, dy);
}
int cudnnConvolutionBackwardFilter(void *handle, float *alpha, Images *xd, void *x, Images *dyd, void *dy, Convolution *c, int algorithm, void *scratch, size_t bytes, float *beta, Filter *dwd, void *dw) {
  return run(KERNEL, handle, alpha, *xd, x, *dwd, dw, *c, algorithm, scratch, bytes, beta, *dyd, dy);
}
}
