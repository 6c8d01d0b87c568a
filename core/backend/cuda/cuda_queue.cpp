#include "core/backend/cuda/cuda_queue.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <string>
#include <utility>

#include "core/backend/cuda/kernels.h"
#include "core/backend/cuda/status.h"
#include "core/backend/visible_keys.h"

namespace volley::cuda {
namespace {

constexpr int64_t kStagingBytes = 4 << 20;
constexpr int64_t kLandingBytes = 1 << 20;
constexpr size_t kMostRecordings = 512;

}  // namespace

CudaQueue::CudaQueue(int device, const DeviceMemory& memory, const Abilities& abilities)
    : device_(device),
      memory_(memory),
      recorded_(device, "cuda:" + std::to_string(device)),
      abilities_(abilities) {
  use_device();
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "stream");
  void* pinned = nullptr;
  check(cudaMallocHost(&pinned, static_cast<size_t>(kStagingBytes + kLandingBytes)), "pinned memory");
  staging_ = static_cast<std::byte*>(pinned);
  landing_ = staging_ + kStagingBytes;
}

CudaQueue::~CudaQueue() {
  cudaSetDevice(device_);
  cudaStreamSynchronize(stream_);
  for (auto& [key, recording] : recordings_) {
    if (recording.graph != nullptr) cudaGraphExecDestroy(recording.graph);
  }
  cudaFreeHost(staging_);
  cudaStreamDestroy(stream_);
}

void CudaQueue::use_device() const {
  check(cudaSetDevice(device_), "device");
}

Stream CudaQueue::stream() {
  use_device();
  Stream stream{abilities_, stream_};
  stream.program = program_;
  if (std::exchange(tables_changed_, false)) stream.overlaps = false;
  return stream;
}

void CudaQueue::settle() {
  use_device();
  if (program_ != nullptr) program_->end();
}

std::byte* CudaQueue::scratch(int64_t bytes) {
  if (bytes == 0) return nullptr;
  if (scratch_.empty() || scratch_.back().bytes() < bytes) {
    scratch_.push_back(memory_.allocate(static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(bytes)))));
  }
  return scratch_.back().data();
}

namespace {

bool are_all_bf16(std::span<const LinearTarget> targets) {
  return std::ranges::all_of(
      targets, [](const LinearTarget& target) { return target.weight->type == WeightType::kBF16; });
}

}  // namespace

void CudaQueue::gather_rows(const GatherRowsArgs& args) {
  launch_gather_rows(args, stream());
}
void CudaQueue::add_rows(const AddRowsArgs& args) {
  launch_add_rows(args, stream());
}
void CudaQueue::copy(const CopyArgs& args) {
  if (args.x.size() == 0) return;
  settle();
  check(cudaMemcpyAsync(args.out.data, args.x.data, static_cast<size_t>(args.x.size()) * 4,
                        cudaMemcpyDeviceToDevice, stream_),
        "copy");
}
void CudaQueue::rms_norm(const RmsNormArgs& args) {
  launch_rms_norm(args, stream());
}
void CudaQueue::layer_norm(const LayerNormArgs& args) {
  launch_layer_norm(args, stream());
}

void CudaQueue::linear(const LinearArgs& args) {
  const std::array targets{LinearTarget{.weight = &args.weight, .bias = args.bias, .out = args.out}};
  multiply({.x = args.x, .targets = targets, .phase = args.phase}, args.accumulate);
}

void CudaQueue::linears(const LinearsArgs& args) {
  multiply(args, Accumulate::kAssign);
}

std::byte* CudaQueue::rounded_rows(ConstTensor x, const LinearWeight& weight) {
  return scratch(rounded_rows_bytes(x.size() / weight.in_features, weight.in_features));
}

void CudaQueue::multiply(const LinearsArgs& args, Accumulate accumulate) {
  const LinearWeight& first = *args.targets.front().weight;
  for (size_t i = 1; i < args.targets.size(); ++i) {
    if (args.targets[i].weight->type == first.type) continue;
    multiply({.x = args.x, .targets = args.targets.first(i), .phase = args.phase}, accumulate);
    return multiply({.x = args.x, .targets = args.targets.subspan(i), .phase = args.phase}, accumulate);
  }
  switch (first.type) {
    case WeightType::kF32:
      return launch_products_f32(args, accumulate, stream());
    case WeightType::kBF16:
      return launch_products_bf16(args, nullptr, accumulate, rounded_rows(args.x, first), stream());
    case WeightType::kQ8_0:
      return launch_products_q8_0(
          args, accumulate,
          scratch(quantized_rows_bytes(args.x.size() / first.in_features, first.in_features)), stream());
    case WeightType::kQ4_1:
      VOLLEY_ASSERT(false);  // pack_linear has refused it
  }
}

void CudaQueue::gated_linears(const GatedLinearsArgs& args) {
  if (args.gate.weight->type != WeightType::kBF16 || args.up.weight->type != WeightType::kBF16 ||
      are_chains(args.phase)) {
    return Queue::gated_linears(args);
  }
  launch_gated_products_bf16(args, nullptr, rounded_rows(args.x, *args.gate.weight), stream());
}

// Rows that become bf16 are normed on the way.
void CudaQueue::normed_linears(const NormedLinearsArgs& args) {
  const LinearWeight& first = *args.linears.targets.front().weight;
  if (!are_all_bf16(args.linears.targets)) return Queue::normed_linears(args);
  launch_products_bf16(args.linears, &args.norm, Accumulate::kAssign, rounded_rows(args.norm.x, first),
                       stream());
}

void CudaQueue::normed_gated_linears(const NormedGatedLinearsArgs& args) {
  const LinearWeight& first = *args.linears.gate.weight;
  if (first.type != WeightType::kBF16 || args.linears.up.weight->type != WeightType::kBF16 ||
      are_chains(args.linears.phase)) {
    return Queue::normed_gated_linears(args);
  }
  launch_gated_products_bf16(args.linears, &args.norm, rounded_rows(args.norm.x, first), stream());
}

bool CudaQueue::are_chains(Phase phase) const {
  return phase == Phase::kEncoder && abilities_.has_wgmma;
}

void CudaQueue::activated_feed_forward(const ActivatedFeedForwardArgs& args) {
  if (!abilities_.has_wgmma || args.norm.x.size() == 0 || !takes_activated_feed_forward_bf16(args))
    return Queue::activated_feed_forward(args);
  launch_activated_feed_forward_bf16(args, scratch(activated_feed_forward_bytes(args)), stream());
}

void CudaQueue::dense_self_attention(const DenseSelfAttentionArgs& args) {
  if (args.norm.x.size() == 0 || !takes_dense_self_attention_bf16(args, abilities_))
    return Queue::dense_self_attention(args);
  launch_dense_self_attention_bf16(args, scratch(dense_self_attention_bytes(args)), stream());
}

// What lies between the two products is written as the second takes it.
void CudaQueue::feed_forward(const FeedForwardArgs& args) {
  const LinearWeight &gate = *args.gates.linears.gate.weight, &down = args.down.weight;
  if (gate.type != WeightType::kBF16 || args.gates.linears.up.weight->type != WeightType::kBF16 ||
      down.type != WeightType::kBF16 || !takes_feed_forward_bf16(gate) ||
      are_chains(args.gates.linears.phase)) {
    return Queue::feed_forward(args);
  }
  const int64_t rows = args.gates.norm.x.size() / gate.in_features;
  launch_feed_forward_bf16(args, scratch(feed_forward_bytes(rows, gate)), stream());
}

void CudaQueue::attention_inputs(const AttentionInputsArgs& args) {
  const NormedLinearsArgs& projections = args.projections;
  if (are_all_bf16(projections.linears.targets) && !are_chains(projections.linears.phase) &&
      takes_attention_inputs_bf16(args, abilities_)) {
    std::byte* const rounded = rounded_rows(projections.norm.x, *projections.linears.targets.front().weight);
    return launch_attention_inputs_bf16(args, rounded, stream());
  }
  Queue::attention_inputs(args);
}

// What lies between the two is written as the product takes it.
void CudaQueue::attention_output(const AttentionOutputArgs& args) {
  const ConstTensor& q = args.attention.q;
  if (q.size() == 0 || !takes_attention_output_bf16(args)) return Queue::attention_output(args);
  launch_attention_output_bf16(args, scratch(attention_output_bytes(q.shape[0], args.output.weight)),
                               stream());
}

void CudaQueue::rotate_and_write(const RotateAndWriteArgs& args) {
  launch_rotate_and_write(args, stream());
}

void CudaQueue::activate(const ActivateArgs& args) {
  launch_activate(args, stream());
}
void CudaQueue::silu_mul(const SiluMulArgs& args) {
  launch_silu_mul(args, stream());
}
void CudaQueue::add(const AddArgs& args) {
  launch_add(args, stream());
}
void CudaQueue::rope(const RopeArgs& args) {
  launch_rope(args, stream());
}
void CudaQueue::write_cache(const WriteCacheArgs& args) {
  launch_write_cache(args, stream());
}
void CudaQueue::attention(const AttentionArgs& args) {
  launch_attention(args, stream());
}
void CudaQueue::attention_weights(const AttentionWeightsArgs& args) {
  launch_attention_weights(args, stream());
}
void CudaQueue::dense_attention(const DenseAttentionArgs& args) {
  if (args.q.size() == 0) return;
  if (takes_dense_bf16(args, abilities_))
    return launch_dense_attention_bf16(args, scratch(dense_attention_scratch_bytes(args, abilities_)),
                                       stream());
  launch_dense_attention(args, stream());
}

void CudaQueue::move_entries(const MoveEntriesArgs& args) {
  MoveTable table{};
  if (!args.moves.empty()) {
    std::vector<PlanePointers> planes;
    for (const CachePlane& plane : args.planes) planes.push_back({plane.keys, plane.values});
    const auto plane_bytes = static_cast<int64_t>(planes.size() * sizeof(PlanePointers));
    const int64_t bytes = plane_bytes + static_cast<int64_t>(args.moves.size_bytes());
    // The last move's kernel comes before this upload in the stream, so its table may be overwritten.
    if (moves_.bytes() < bytes) moves_ = memory_.allocate(2 * bytes);
    upload(planes.data(), moves_.data(), plane_bytes);
    upload(args.moves.data(), moves_.data() + plane_bytes, static_cast<int64_t>(args.moves.size_bytes()));
    table = {.planes = reinterpret_cast<const PlanePointers*>(moves_.data()),
             .moves = reinterpret_cast<const int32_t*>(moves_.data() + plane_bytes),
             .count = static_cast<int64_t>(args.moves.size() / 2)};
  }
  launch_move_entries(args, table, stream());
  tables_changed_ = true;
}

void CudaQueue::copy_page(const CopyPageArgs& args) {
  settle();
  for (const CachePlane& plane : args.planes) {
    const int64_t bytes = PlaneLayout(plane).page_size() * cache_element_bytes(plane.type);
    for (std::byte* entries : {plane.keys, plane.values}) {
      check(cudaMemcpyAsync(entries + args.to * bytes, entries + args.from * bytes,
                            static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice, stream_),
            "copy_page");
    }
  }
}

bool CudaQueue::takes_planes(const Conv2dArgs& args) const {
  return abilities_.has_wgmma && args.out.size() > 0 && takes_rounded_planes(args);
}
void CudaQueue::conv2d(const Conv2dArgs& args) {
  VOLLEY_ASSERT(args.x.shape[1] == args.weight.in_channels && args.out.shape[1] == args.weight.out_channels);
  if (takes_planes(args)) {
    std::byte* planes = scratch(rounded_planes_bytes(args));
    launch_round_planes(args.x, planes, stream());
    return launch_conv2d_planes(args, planes, stream());
  }
  if (args.weight.type == WeightType::kBF16) return launch_conv2d_bf16(args, stream());
  launch_conv2d_f32(args, stream());
}
void CudaQueue::group_norm(const GroupNormArgs& args) {
  launch_group_norm(args, scratch(group_norm_scratch_bytes(args)), stream());
}
// What lies between is written as the convolutions take it.
void CudaQueue::normed_convs(const NormedConvsArgs& args) {
  VOLLEY_ASSERT(!args.convs.empty());
  if (!std::ranges::all_of(args.convs, [&](const Conv2dArgs& conv) { return takes_planes(conv); }))
    return Queue::normed_convs(args);
  VOLLEY_ASSERT(std::ranges::all_of(
      args.convs, [&](const Conv2dArgs& conv) { return conv.x.data == args.norm.out.data; }));
  const int64_t planes_bytes = rounded_planes_bytes(args.convs.front());
  std::byte* planes = scratch(planes_bytes + group_norm_scratch_bytes(args.norm));
  std::byte* moments = planes + planes_bytes;
  launch_group_moments(args.norm, moments, stream());
  launch_norm_planes(args.norm, moments, planes, stream());
  for (const Conv2dArgs& conv : args.convs) launch_conv2d_planes(conv, planes, stream());
}
void CudaQueue::upsampled_conv(const UpsampledConvArgs& args) {
  VOLLEY_ASSERT(args.conv.x.data == args.upsample.out.data);
  if (!takes_planes(args.conv)) return Queue::upsampled_conv(args);
  std::byte* planes = scratch(rounded_planes_bytes(args.conv));
  launch_upsample_planes(args.upsample.x, planes, stream());
  launch_conv2d_planes(args.conv, planes, stream());
}
void CudaQueue::upsample2x(const Upsample2xArgs& args) {
  launch_upsample2x(args, stream());
}
void CudaQueue::channel_bytes(const ChannelBytesArgs& args) {
  launch_channel_bytes(args, stream());
}
void CudaQueue::transpose(const TransposeArgs& args) {
  launch_transpose(args, stream());
}
void CudaQueue::l2_normalize(const L2NormalizeArgs& args) {
  launch_l2_normalize(args, stream());
}
void CudaQueue::nearest_rows(const NearestRowsArgs& args) {
  launch_nearest_rows(args, stream());
}
void CudaQueue::sample(const SampleArgs& args) {
  if (args.rows.size() == 0) return;
  use_device();
  launch_sample(args, scratch(sample_scratch_bytes(args)), stream());
}

// The first run of a key sets up the memory that operations need; the second is recorded and, like all later
// ones, replayed.
void CudaQueue::run_recorded(std::span<const int64_t> key, const std::function<void()>& operations) {
  use_device();
  if (recordings_.size() >= kMostRecordings && !recordings_.contains({key.begin(), key.end()})) {
    return operations();
  }
  Recording& recording = recordings_[{key.begin(), key.end()}];
  if (recording.graph == nullptr) {
    if (recording.runs++ == 0) return operations();
    record(recording, operations);
  }
  check(cudaGraphLaunch(recording.graph, stream_), "replay");
}

void CudaQueue::record(Recording& recording, const std::function<void()>& operations) {
  if (meeting_.bytes() == 0) {
    meeting_ = recorded_.allocate(sizeof(Program::Meeting));
    check(cudaMemsetAsync(meeting_.data(), 0, sizeof(Program::Meeting), stream_), "recording");
  }
  Program program(recorded_, reinterpret_cast<Program::Meeting*>(meeting_.data()));
  program_ = &program;
  cudaGraph_t graph = nullptr;
  try {
    check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeRelaxed), "recording");
    operations();
    program.end();
  } catch (...) {
    program_ = nullptr;
    cudaStreamEndCapture(stream_, &graph);
    if (graph != nullptr) cudaGraphDestroy(graph);
    throw;
  }
  program_ = nullptr;
  check(cudaStreamEndCapture(stream_, &graph), "recording");
  cudaGraphExec_t made = nullptr;
  const cudaError_t status = cudaGraphInstantiate(&made, graph, 0);
  cudaGraphDestroy(graph);
  check(status, "recording");
  try {
    recording.memory = program.finish(stream_);
  } catch (...) {
    cudaGraphExecDestroy(made);
    throw;
  }
  recording.graph = made;
}

void CudaQueue::upload(const void* host, void* device, int64_t bytes) {
  if (bytes == 0) return;
  use_device();
  const void* source = host;
  if (bytes <= kStagingBytes) {
    if (staging_used_ + bytes > kStagingBytes) {
      check(cudaStreamSynchronize(stream_), "upload");  // what lies there may still be on its way
      staging_used_ = 0;
    }
    std::memcpy(staging_ + staging_used_, host, static_cast<size_t>(bytes));
    source = staging_ + staging_used_;
    staging_used_ += (bytes + 15) / 16 * 16;
  }
  check(cudaMemcpyAsync(device, source, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream_),
        "upload");
  if (source == host) check(cudaStreamSynchronize(stream_), "upload");
}

void CudaQueue::download(const void* device, void* host, int64_t bytes) {
  if (bytes == 0) return;
  use_device();
  if (bytes >= LargeDownload::kLeastBytes) {
    if (large_download_ == nullptr) large_download_ = std::make_unique<LargeDownload>();
    large_download_->run(device, host, bytes, stream_);
    return finish();
  }
  void* target = bytes <= kLandingBytes ? landing_ : host;
  check(cudaMemcpyAsync(target, device, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, stream_),
        "download");
  finish();
  if (target != host) std::memcpy(host, target, static_cast<size_t>(bytes));
}

void CudaQueue::finish() {
  use_device();
  check(cudaStreamSynchronize(stream_), "operations");
  staging_used_ = 0;
}

}  // namespace volley::cuda
