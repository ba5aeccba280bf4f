// The driver, cuDNN and NVRTC of a machine with one GPU, as far as Convoy calls them, on the CPU: for tests on machines
// without a GPU. simulated.ts puts the prelude, the very CUDA source of kernels.ts and their table before this file.
//
// Memory is the host's and starts as NaN. A call on a stream is recorded while the stream is captured; else it is done in an
// order of the streams' calls that CUDA allows, see `schedule`.
// Convolutions are plain loops; float32 factors are rounded to TF32 where the descriptor allows it. Whatever is not as
// CUDA's and cuDNN's documentation wants it (types, layouts, shapes, addresses) is refused with their codes.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

typedef std::function<int()> Work;
struct Capture;

static const int INVALID_VALUE = 1, OUT_OF_MEMORY = 2, ILLEGAL_ADDRESS = 700, CAPTURING = 900, UNJOINED = 904;
static const int BAD_PARAM = 2000, NOT_SUPPORTED = 3000;
static const size_t LARGEST = size_t(1) << 30;

// How it is to misbehave: "", "no-device", "old", "wrong", "unsteady", "few-algorithms", "no-algorithm", "multiples-of-8", "unrecordable".
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

// How calls of several streams are ordered among each other, which CUDA leaves open where no event is waited for: 0, each at
// once; 1, each as late as somebody waits for it; above, by a random number generator with that seed.
static unsigned order = 0, state = 0;
extern "C" void schedule(int seed) { order = state = seed; }

// What a stream does one after another: work, notes of events, waits for them, and whole graphs.
struct Event { uint64_t noted = 0, reached = 0; struct Capture *capture = nullptr; };
struct Item {
  enum { WORK, NOTE, WAIT, GRAPH } kind;
  Work work;
  Event *event = nullptr;
  uint64_t number = 0;  // Of the event's notes: the one that is made or waited for.
  std::shared_ptr<std::vector<struct Stream>> inner;
};
struct Stream { std::deque<Item> items; struct Capture *capture = nullptr; size_t captured = 0; };
// A graph while it is recorded: its own streams and events, the first stream being the one on which it was begun.
struct Capture { std::vector<Stream> streams; std::vector<void *> owners; std::deque<Event> events; std::map<Event *, size_t> known; int wrong = 0; };
typedef std::pair<std::vector<Stream>, size_t> Graph;  // with the number of its events

static std::vector<Stream *> streams;
static Capture *recording = nullptr;  // of this thread
static int failed = 0;
static unsigned dice() { state = state * 1664525u + 1013904223u; return state >> 8; }

// Does what is next in one of the streams, if it can be done. Returns whether it did something.
static bool advance(Stream &stream) {
  if (stream.items.empty()) return false;
  Item &item = stream.items.front();
  if (item.kind == Item::WAIT && item.event->reached < item.number) return false;
  if (item.kind == Item::WORK) { if (int status = item.work()) failed = status; }
  if (item.kind == Item::NOTE) item.event->reached = item.number;
  if (item.kind == Item::GRAPH) {
    std::vector<Stream> &inner = *item.inner;
    size_t first = order > 1 ? dice() % inner.size() : 0;
    for (size_t i = 0; i < inner.size(); i++)
      if (advance(inner[(first + i) % inner.size()])) return true;
    for (Stream &one : inner) if (!one.items.empty()) return false;
  }
  stream.items.pop_front();
  return true;
}
// Does all that must be done before a stream's next call can be; of a graph, its first stream's.
static void push(Stream &stream) {
  while (!advance(stream)) {
    if (stream.items.empty()) return;
    Item item = stream.items.front();
    std::vector<Stream *> others = streams;
    if (item.kind == Item::GRAPH) for (Stream &one : *item.inner) others.push_back(&one);
    bool moved = false;
    for (Stream *other : others) {
      bool notes = false;
      if (item.kind == Item::WAIT) for (Item &one : other->items) notes |= one.kind == Item::NOTE && one.event == item.event && one.number <= item.number;
      if ((notes || item.kind == Item::GRAPH) && other != &stream && !other->items.empty()) { push(*other); moved = true; break; }
    }
    if (!moved) { failed = ILLEGAL_ADDRESS; stream.items.clear(); return; }
  }
}
// After each call: lets the streams work, as far as the order wants it.
static void work() {
  if (order == 0) { for (Stream *one : streams) while (!one->items.empty()) push(*one); }
  else if (order > 1) for (unsigned n = dice() % 8; n > 0 && !streams.empty(); n--) advance(*streams[dice() % streams.size()]);
}
static int status() { int was = failed; failed = 0; return was; }

static int submit(void *where, Item item) {
  Stream *stream = (Stream *)where;
  if (!stream) return INVALID_VALUE;
  if (stream->capture) { stream->capture->streams[stream->captured].items.push_back(item); return 0; }
  stream->items.push_back(item);
  work();
  return order == 0 ? status() : 0;
}
static int submit(void *stream, Work work) { return submit(stream, Item{Item::WORK, work}); }

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
  if (recording) return CAPTURING;
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
int cuMemHostAlloc(void **address, size_t bytes, unsigned) { if (recording) return CAPTURING; if (bytes == 0) return INVALID_VALUE; *address = malloc(bytes); live++; return 0; }
int cuMemFreeHost(void *address) { free(address); live--; return 0; }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream) {
  if (!inside((void *)to, bytes) || inside(from)) return INVALID_VALUE;
  return submit(stream, [=] { memcpy((void *)to, from, bytes); return 0; });
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream) {
  if (!inside((void *)from, bytes) || inside(to)) return INVALID_VALUE;
  return submit(stream, [=] { memcpy(to, (void *)from, bytes); return 0; });
}

int cuStreamCreate(void **stream, unsigned) { streams.push_back(new Stream); *stream = streams.back(); live++; return 0; }
int cuStreamDestroy_v2(void *stream) {
  for (size_t i = 0; i < streams.size(); i++) if (streams[i] == stream) streams.erase(streams.begin() + i);
  delete (Stream *)stream;
  live--;
  return 0;
}
int cuStreamSynchronize(void *stream) {
  if (recording) return CAPTURING;
  while (!((Stream *)stream)->items.empty()) push(*(Stream *)stream);
  return status();
}
int cuEventCreate(void **event, unsigned) { *event = new Event; live++; return 0; }
int cuEventDestroy_v2(void *event) {
  // Notes and waits that are still to come must not meet another event at its place.
  for (Stream *one : streams) for (Item &item : one->items) if (item.event == event) return INVALID_VALUE;
  delete (Event *)event;
  live--;
  return 0;
}
int cuEventRecord(void *where, void *stream) {
  Event *event = (Event *)where;
  event->capture = ((Stream *)stream)->capture;
  if (Capture *capture = event->capture) {
    capture->events.push_back({1});
    capture->known[event] = capture->events.size() - 1;
    Item item{Item::NOTE};
    item.number = capture->known[event];
    return submit(stream, item);
  }
  Item item{Item::NOTE};
  item.event = event;
  item.number = ++event->noted;
  return submit(stream, item);
}
int cuStreamWaitEvent(void *where, void *noted, unsigned) {
  Stream *stream = (Stream *)where;
  Event *event = (Event *)noted;
  Item item{Item::WAIT};
  if (Capture *capture = event->capture) {
    if (capture != recording) return INVALID_VALUE;
    if (!stream->capture) {
      // The stream takes part from here on.
      stream->capture = capture;
      stream->captured = capture->streams.size();
      capture->streams.emplace_back();
      capture->owners.push_back(stream);
    }
    item.number = capture->known[event];
    return submit(stream, item);
  }
  if (stream->capture) return INVALID_VALUE;
  item.event = event;
  item.number = event->noted;
  return submit(stream, item);
}
int cuEventSynchronize(void *where) {
  Event *event = (Event *)where;
  if (recording) return CAPTURING;
  while (event->reached < event->noted && !failed) {
    bool found = false;
    for (Stream *one : streams)
      for (Item &item : one->items) found |= item.kind == Item::NOTE && item.event == event;
    if (!found) return INVALID_VALUE;
    for (Stream *one : streams) {
      bool has = false;
      for (Item &item : one->items) has |= item.kind == Item::NOTE && item.event == event;
      if (has) { push(*one); break; }
    }
  }
  return status();
}
int cuStreamBeginCapture_v2(void *stream, int mode) {
  if (mode != 1 || recording) return INVALID_VALUE;
  recording = ((Stream *)stream)->capture = new Capture;
  recording->streams.emplace_back();
  recording->owners.push_back(stream);
  return 0;
}
int cuStreamEndCapture(void *stream, void **graph) {
  Capture *capture = ((Stream *)stream)->capture;
  *graph = nullptr;
  if (!capture || capture->owners[0] != stream) return INVALID_VALUE;
  for (void *one : capture->owners) ((Stream *)one)->capture = nullptr;
  recording = nullptr;
  // The last that each other stream did must be a note that the first one waits for.
  int result = 0;
  for (size_t i = 1; i < capture->streams.size(); i++) {
    Item &last = capture->streams[i].items.back();
    bool joined = false;
    for (Item &item : capture->streams[0].items) joined |= item.kind == Item::WAIT && last.kind == Item::NOTE && item.number == last.number;
    if (!joined) result = UNJOINED;
  }
  if (result == 0) { *graph = new Graph(capture->streams, capture->events.size()); live++; }
  delete capture;
  return result;
}
int cuGraphInstantiateWithFlags(void **executable, void *graph, uint64_t) {
  *executable = new Graph(*(Graph *)graph);
  live++;
  return 0;
}
int cuGraphLaunch(void *executable, void *stream) {
  launches++;
  Graph &graph = *(Graph *)executable;
  // Events of this launch alone.
  auto events = std::make_shared<std::vector<Event>>(graph.second);
  Item item{Item::GRAPH};
  item.inner = std::make_shared<std::vector<Stream>>(graph.first);
  for (Stream &one : *item.inner)
    for (Item &inner : one.items)
      if (inner.kind == Item::NOTE || inner.kind == Item::WAIT) {
        inner.event = &(*events)[inner.number];
        inner.number = 1;
        inner.work = [events] { return 0; };
      }
  return submit(stream, item);
}
int cuGraphExecDestroy(void *executable) { delete (Graph *)executable; live--; return 0; }
int cuGraphDestroy(void *graph) { delete (Graph *)graph; live--; return 0; }

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
  if (fault == "multiples-of-8" && x.type == 9 && (x.c % 8 || y.c % 8)) return NOT_SUPPORTED;
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
  if (fault == "unrecordable" && ((Stream *)((Handle *)handle)->stream)->capture) return NOT_SUPPORTED;
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
