// Nearest table rows. Distances are summed element by element in order, as the host does, so that ties are
// the same.
#include "core/backend/cuda/device_math.cuh"
#include "core/backend/cuda/kernels.h"
#include "core/backend/cuda/launch.cuh"

namespace volley::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    nearest(const float* x, const float* table, int64_t entries, int width, int32_t* ids) {
  await_previous();
  __shared__ float distances[kThreads];
  __shared__ int32_t candidates[kThreads];
  const float* row = x + blockIdx.x * int64_t{width};
  float best = INFINITY;
  int32_t best_id = -1;
  for (int64_t t = threadIdx.x; t < entries; t += kThreads) {
    float distance = 0.0f;
    for (int i = 0; i < width; ++i) {
      const float difference = row[i] - table[t * width + i];
      distance += difference * difference;
    }
    if (best_id < 0 || distance < best) {
      best = distance;
      best_id = static_cast<int32_t>(t);
    }
  }
  distances[threadIdx.x] = best;
  candidates[threadIdx.x] = best_id;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int t = 1; t < kThreads; ++t) {
    const int32_t id = candidates[t];
    if (id < 0) continue;
    if (best_id < 0 || distances[t] < best || (distances[t] == best && id < best_id)) {
      best = distances[t];
      best_id = id;
    }
  }
  ids[blockIdx.x] = best_id;
}

}  // namespace

void launch_nearest_rows(const NearestRowsArgs& args, const Stream& stream) {
  if (args.ids.size() == 0) return;
  launch("nearest_rows", nearest, static_cast<unsigned>(args.ids.size()), kThreads, stream, args.x.data,
         args.table.data, args.table.shape[0], static_cast<int>(args.table.shape[1]), args.ids.data);
}

}  // namespace volley::cuda
