// Elementwise operations and copies of rows.
#include <algorithm>

#include "core/backend/channel_bytes.h"
#include "core/backend/cuda/device_math.cuh"
#include "core/backend/cuda/kernels.h"
#include "core/backend/cuda/launch.cuh"

namespace volley::cuda {
namespace {

constexpr int kThreads = 256;

template <bool kAdds>
__global__ void rows_from_table(const float* table, const int32_t* ids, int64_t width, float* out) {
  await_previous();
  const int64_t row = blockIdx.x;
  const int32_t id = ids[row];
  if (id < 0) return;
  for (int64_t i = threadIdx.x; i < width; i += kThreads) {
    const float value = table[id * width + i];
    out[row * width + i] = kAdds ? out[row * width + i] + value : value;
  }
}

// One thread an element; `f` reads and writes by index.
template <typename F>
__global__ void each_element(int64_t count, F f) {
  await_previous();
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < count) f(i);
}

template <typename F>
void for_each_element(int64_t count, const Stream& stream, const char* name, F f) {
  if (count == 0) return;
  launch(name, each_element<F>, blocks_of(count, kThreads), kThreads, stream, count, f);
}

// out[i] = f(in[i]...), four elements a thread: at once where all lie at multiples of 16 bytes.
template <typename F, typename... In>
__global__ void map_vectors(int64_t count, bool aligned, float* out, F f, const In*... in) {
  await_previous();
  const int64_t first = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * 4;
  if (aligned && first + 4 <= count) {
    const auto apply = [&](const auto&... v) {
      *reinterpret_cast<float4*>(out + first) = make_float4(f(v.x...), f(v.y...), f(v.z...), f(v.w...));
    };
    apply(*reinterpret_cast<const float4*>(in + first)...);
  } else {
    for (int64_t i = first; i < min(first + 4, count); ++i) out[i] = f(in[i]...);
  }
}

template <typename F, typename... In>
void map_elements(int64_t count, const Stream& stream, const char* name, float* out, F f, const In*... in) {
  if (count == 0) return;
  const bool aligned = is_aligned(out, sizeof(float4)) && (is_aligned(in, sizeof(float4)) && ...);
  launch(name, map_vectors<F, In...>, blocks_of(count, 4 * kThreads), kThreads, stream, count, aligned, out,
         f, in...);
}

// Squares of kSquare elements, through shared memory, so that rows are read and written as they lie.
constexpr int kSquare = 32;

__global__ void __launch_bounds__(kThreads)
    transpose_squares(const float* x, int64_t items, int64_t rows, int64_t columns, float* out) {
  __shared__ float square[kSquare][kSquare + 1];
  await_previous();
  const int64_t left = int64_t{blockIdx.x} * kSquare, top = int64_t{blockIdx.y} * kSquare;
  const int lane = threadIdx.x % kSquare;
  for (int64_t i = blockIdx.z; i < items; i += gridDim.z) {
    const int64_t item = i * rows * columns;
    __syncthreads();
    for (int r = threadIdx.x / kSquare; r < kSquare; r += kThreads / kSquare) {
      if (top + r < rows && left + lane < columns)
        square[r][lane] = x[item + (top + r) * columns + left + lane];
    }
    __syncthreads();
    for (int r = threadIdx.x / kSquare; r < kSquare; r += kThreads / kSquare) {
      if (left + r < columns && top + lane < rows)
        out[item + (left + r) * rows + top + lane] = square[lane][r];
    }
  }
}

template <typename Args>
int64_t width_of(const Args& args) {
  return args.table.shape[-1];
}

}  // namespace

cudaError_t kernel_status() {
  cudaFuncAttributes attributes{};
  const cudaError_t status = cudaFuncGetAttributes(&attributes, rows_from_table<false>);
  cudaGetLastError();  // asking leaves no error behind
  return status;
}

void launch_gather_rows(const GatherRowsArgs& args, const Stream& stream) {
  if (args.ids.size() == 0) return;
  launch("gather_rows", rows_from_table<false>, static_cast<unsigned>(args.ids.size()), kThreads, stream,
         args.table.data, args.ids.data, width_of(args), args.out.data);
}

void launch_add_rows(const AddRowsArgs& args, const Stream& stream) {
  if (args.ids.size() == 0) return;
  launch("add_rows", rows_from_table<true>, static_cast<unsigned>(args.ids.size()), kThreads, stream,
         args.table.data, args.ids.data, width_of(args), args.out.data);
}

void launch_activate(const ActivateArgs& args, const Stream& stream) {
  map_elements(
      args.x.size(), stream, "activate", args.x.data,
      [activation = args.activation] __device__(float x) { return activated(activation, x); },
      static_cast<const float*>(args.x.data));
}

void launch_silu_mul(const SiluMulArgs& args, const Stream& stream) {
  map_elements(
      args.out.size(), stream, "silu_mul", args.out.data,
      [] __device__(float gate, float up) { return silu(gate) * up; }, args.gate.data, args.up.data);
}

void launch_add(const AddArgs& args, const Stream& stream) {
  map_elements(
      args.out.size(), stream, "add", args.out.data, [] __device__(float a, float b) { return a + b; },
      args.a.data, args.b.data);
}

void launch_rope(const RopeArgs& args, const Stream& stream) {
  const int64_t rows = args.x.shape[0], heads = args.x.shape[1], width = args.x.shape[2];
  if (rows == 0) return;
  const int64_t half = width / 2, components = args.positions.size() / rows, columns = half / components;
  const bool adjacent = args.layout == RopeLayout::kAdjacent;
  for_each_element(rows * heads * half, stream, "rope",
                   [=, x = args.x.data, cosines = args.cos.data, sines = args.sin.data,
                    positions = args.positions.data] __device__(int64_t index) {
                     const int64_t i = index % half, vector = index / half;
                     const int64_t row = vector / heads;
                     const int64_t position = positions[row * components + i / columns];
                     const float c = cosines[position * columns + i % columns];
                     const float s = sines[position * columns + i % columns];
                     float* v = x + vector * width;
                     float& a = adjacent ? v[2 * i] : v[i];
                     float& b = adjacent ? v[2 * i + 1] : v[half + i];
                     const float turned = a * c - b * s;
                     b = b * c + a * s;
                     a = turned;
                   });
}

void launch_transpose(const TransposeArgs& args, const Stream& stream) {
  if (args.x.size() == 0) return;
  const int64_t rows = args.x.shape[1], columns = args.x.shape[2];
  constexpr int64_t kMostAbove = 65535;  // blocks, in the grid's last dimension
  const int64_t items = args.x.shape[0];
  const dim3 grid(blocks_of(columns, kSquare), blocks_of(rows, kSquare),
                  static_cast<unsigned>(std::min(items, kMostAbove)));
  launch("transpose", transpose_squares, grid, kThreads, stream, args.x.data, items, rows, columns,
         args.out.data);
}

void launch_upsample2x(const Upsample2xArgs& args, const Stream& stream) {
  const int64_t height = args.x.shape[2], width = args.x.shape[3];
  for_each_element(args.out.size(), stream, "upsample2x",
                   [=, x = args.x.data, out = args.out.data] __device__(int64_t index) {
                     const int64_t column = index % (2 * width), row = index / (2 * width) % (2 * height),
                                   plane = index / (4 * width * height);
                     out[index] = x[(plane * height + row / 2) * width + column / 2];
                   });
}

void launch_channel_bytes(const ChannelBytesArgs& args, const Stream& stream) {
  const int64_t channels = args.x.shape[1], area = args.x.shape[2] * args.x.shape[3];
  for_each_element(args.x.shape[0] * area, stream, "channel_bytes",
                   [=, x = args.x.data, out = args.out.data] __device__(int64_t point) {
                     const int64_t n = point / area, p = point % area;
                     for (int64_t c = 0; c < channels; ++c)
                       out[point * channels + c] = channel_byte(x[(n * channels + c) * area + p]);
                   });
}

}  // namespace volley::cuda
