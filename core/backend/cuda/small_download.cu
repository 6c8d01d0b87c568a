// Few bytes from a device to the host, by a kernel: the copy engine begins and ends later than a kernel that
// follows another, and the host learns of a word in its memory sooner than of the end of a copy.
#include "core/backend/cuda/launch.cuh"
#include "core/backend/cuda/small_download.h"

namespace volley::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void read_words(const uint32_t* from, int count, Landing landing) {
  await_previous();
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) landing.words[i] = from[i];
  __threadfence_system();
  __syncthreads();
  if (threadIdx.x == 0)
    asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(landing.turn), "r"(landing.next) : "memory");
}

}  // namespace

bool takes_small_download(const void* device, int64_t bytes) {
  return bytes <= kMostSmallBytes && bytes % 4 == 0 && is_aligned(device, 4);
}

void launch_small_download(const void* device, int64_t bytes, const Landing& landing, const Stream& stream) {
  launch("download", read_words, dim3(1), kThreads, stream, static_cast<const uint32_t*>(device),
         static_cast<int>(bytes / 4), landing);
}

}  // namespace volley::cuda
