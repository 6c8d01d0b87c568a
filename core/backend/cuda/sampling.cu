// A team of blocks samples each row: each block keeps its part of the row in shared memory, so that logits
// are read once. Tokens are those of the host: the same noise, the same order of operations on logits; only
// sums of probabilities are taken in another order.
#include "core/backend/cuda/kernels.h"
#include "core/backend/cuda/row_sampler.cuh"

namespace volley::cuda {
namespace {

using sampling::Inputs;
using sampling::kThreads;
using sampling::Outputs;
using sampling::RowSampler;
using sampling::Shared;

constexpr int kTeam = 8;       // blocks, the most that every device with clusters takes
constexpr int kSmallTeam = 2;  // where rows are many

template <int kBlocks>
__global__ void __launch_bounds__(kThreads, 2) sample_rows(Inputs in, Outputs out) {
  extern __shared__ float4 memory[];  // Shared, then the share
  static_assert(sizeof(Shared<kBlocks>) % sizeof(float4) == 0);
  float4* share = memory + sizeof(Shared<kBlocks>) / sizeof(float4);
  RowSampler<kBlocks>(in, out, share, *reinterpret_cast<Shared<kBlocks>*>(memory)).run();
}

// How rows are shared out, of which no result depends.
struct Partition {
  int blocks = 1;
  int64_t share = 0;  // ids of a block
  int64_t shared_bytes = 0;
  bool in_shared_memory = false;
};

template <int kBlocks>
Partition partition_among(int64_t vocab, int most_shared) {
  Partition partition{.blocks = kBlocks};
  partition.share = ceil_div(ceil_div(vocab, 4), kBlocks) * 4;
  partition.shared_bytes = static_cast<int64_t>(sizeof(Shared<kBlocks>));
  partition.in_shared_memory = partition.shared_bytes + partition.share * 4 <= most_shared;
  if (partition.in_shared_memory) partition.shared_bytes += partition.share * 4;
  return partition;
}

Partition partition_of(int64_t rows, int64_t vocab) {
  int device = 0, clusters = 0, most_shared = 0, processors = 0;
  cudaFuncAttributes code{};
  check(cudaGetDevice(&device), "sample");
  check(cudaDeviceGetAttribute(&clusters, cudaDevAttrClusterLaunch, device), "sample");
  check(cudaDeviceGetAttribute(&most_shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "sample");
  check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device), "sample");
  check(cudaFuncGetAttributes(&code, sample_rows<kTeam>), "sample");
  const bool teams = clusters != 0 && code.ptxVersion >= 90;  // both the device and the code it was given
  if (!teams) return partition_among<1>(vocab, most_shared);
  if (rows * kTeam > 2 * processors) {
    const Partition small = partition_among<kSmallTeam>(vocab, most_shared);
    if (small.in_shared_memory) return small;
  }
  return partition_among<kTeam>(vocab, most_shared);
}

}  // namespace

int64_t sample_scratch_bytes(const SampleArgs& args) {
  const Partition partition = partition_of(args.rows.size(), args.logits.shape[1]);
  return partition.in_shared_memory ? 0 : args.rows.size() * partition.blocks * partition.share * 4;
}

void launch_sample(const SampleArgs& args, std::byte* scratch, const Stream& stream) {
  if (args.rows.size() == 0) return;
  const Partition partition = partition_of(args.rows.size(), args.logits.shape[1]);
  const Geometry geometry{.grid = static_cast<unsigned>(args.rows.size() * partition.blocks),
                          .threads = kThreads,
                          .shared_bytes = partition.shared_bytes,
                          .cluster = static_cast<unsigned>(partition.blocks)};
  const Inputs inputs{.logits = args.logits.data,
                      .rows = args.rows.data,
                      .path = args.path.data,
                      .vocab = static_cast<int>(args.logits.shape[1]),
                      .share = static_cast<int>(partition.share),
                      .scratch = reinterpret_cast<float*>(scratch)};
  const Outputs outputs{
      .tokens = args.tokens.data,
      .probability = args.probability.data,
      .entropy = args.entropy.data,
      .distribution = args.distribution.data,
      .top_tokens = args.top_tokens.data,
      .top_probability = args.top_probability.data,
      .top = args.top_tokens.data == nullptr ? 0 : static_cast<int>(args.top_tokens.shape[1])};
  const auto kernel = partition.blocks == 1            ? sample_rows<1>
                      : partition.blocks == kSmallTeam ? sample_rows<kSmallTeam>
                                                       : sample_rows<kTeam>;
  launch("sample", kernel, geometry, stream, inputs, outputs);
}

}  // namespace volley::cuda
