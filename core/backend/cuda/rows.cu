// Elementwise operations and copies of rows.
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
  for_each_element(args.x.size(), stream, "activate",
                   [x = args.x.data, activation = args.activation] __device__(int64_t i) {
                     x[i] = activated(activation, x[i]);
                   });
}

void launch_silu_mul(const SiluMulArgs& args, const Stream& stream) {
  for_each_element(args.out.size(), stream, "silu_mul",
                   [gate = args.gate.data, up = args.up.data, out = args.out.data] __device__(int64_t i) {
                     out[i] = silu(gate[i]) * up[i];
                   });
}

void launch_add(const AddArgs& args, const Stream& stream) {
  for_each_element(args.out.size(), stream, "add",
                   [a = args.a.data, b = args.b.data, out = args.out.data] __device__(int64_t i) {
                     out[i] = a[i] + b[i];
                   });
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
  const int64_t rows = args.x.shape[1], columns = args.x.shape[2];
  for_each_element(args.x.size(), stream, "transpose",
                   [=, x = args.x.data, out = args.out.data] __device__(int64_t index) {
                     const int64_t i = index % rows, j = index / rows % columns, b = index / (rows * columns);
                     out[index] = x[(b * rows + i) * columns + j];
                   });
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

}  // namespace volley::cuda
