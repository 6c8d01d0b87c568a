#include "core/backend/cuda/cuda_queue.h"

#include <atomic>
#include <cstring>
#include <string>
#include <utility>

#include "core/backend/cuda/kernels.h"
#include "core/backend/cuda/small_download.h"
#include "core/backend/cuda/status.h"
#include "core/backend/visible_keys.h"

namespace volley::cuda {
namespace {

constexpr int64_t kStagingBytes = 4 << 20;
constexpr int64_t kLandingBytes = 1 << 20;
constexpr int64_t kTurnBytes = 64;
constexpr size_t kMostRecordings = 512;

}  // namespace

CudaQueue::CudaQueue(int device, const DeviceMemory& memory, const Abilities& abilities,
                     const Copiers& copiers)
    : CudaOperations(device, memory, abilities),
      recorded_(device, "cuda:" + std::to_string(device)),
      copiers_(copiers),
      posts_(recorded_) {
  use_device();
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "stream");
  void* pinned = nullptr;
  check(cudaMallocHost(&pinned, static_cast<size_t>(kStagingBytes + kLandingBytes + kTurnBytes)),
        "pinned memory");
  staging_ = static_cast<std::byte*>(pinned);
  landing_ = staging_ + kStagingBytes;
  turn_ = new (landing_ + kLandingBytes) uint32_t(0);
}

CudaQueue::~CudaQueue() {
  cudaSetDevice(device());
  cudaStreamSynchronize(stream_);
  for (auto& [key, recording] : recordings_) {
    if (recording.graph != nullptr) cudaGraphExecDestroy(recording.graph);
  }
  cudaFreeHost(staging_);
  cudaStreamDestroy(stream_);
}

std::optional<Stream> CudaQueue::stream() {
  use_device();
  Stream stream{abilities(), stream_};
  stream.program = program_;
  if (std::exchange(tables_changed_, false)) stream.overlaps = false;
  return stream;
}

void CudaQueue::settle() {
  use_device();
  if (program_ != nullptr) program_->end();
}

void CudaQueue::copy(const CopyArgs& args) {
  if (args.x.size() == 0) return;
  settle();
  check(cudaMemcpyAsync(args.out.data, args.x.data, static_cast<size_t>(args.x.size()) * 4,
                        cudaMemcpyDeviceToDevice, stream_),
        "copy");
}
void CudaQueue::move_entries(const MoveEntriesArgs& args) {
  MoveTable table{};
  if (!args.moves.empty()) {
    std::vector<PlanePointers> planes;
    for (const CachePlane& plane : args.planes) planes.push_back({plane.keys, plane.values});
    const auto plane_bytes = static_cast<int64_t>(planes.size() * sizeof(PlanePointers));
    const int64_t bytes = plane_bytes + static_cast<int64_t>(args.moves.size_bytes());
    // The last move's kernel comes before this upload in the stream, so its table may be overwritten.
    if (moves_.bytes() < bytes) moves_ = memory().allocate(2 * bytes);
    upload(planes.data(), moves_.data(), plane_bytes);
    upload(args.moves.data(), moves_.data() + plane_bytes, static_cast<int64_t>(args.moves.size_bytes()));
    table = {.planes = reinterpret_cast<const PlanePointers*>(moves_.data()),
             .moves = reinterpret_cast<const int32_t*>(moves_.data() + plane_bytes),
             .count = static_cast<int64_t>(args.moves.size() / 2)};
  }
  launch_move_entries(args, table, *stream());
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
  Program program(recorded_, reinterpret_cast<Program::Meeting*>(meeting_.data()), posts_);
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
    if (large_download_ == nullptr) large_download_ = std::make_unique<LargeDownload>(copiers_.threads());
    large_download_->run(device, host, bytes, stream_);
    return finish();
  }
  if (takes_small_download(device, bytes)) {
    auto* const words = reinterpret_cast<uint32_t*>(landing_);
    launch_small_download(device, bytes, {.words = words, .turn = turn_, .next = ++turns_}, *stream());
    await_turn();
    std::memcpy(host, landing_, static_cast<size_t>(bytes));
    return;
  }
  void* target = bytes <= kLandingBytes ? landing_ : host;
  check(cudaMemcpyAsync(target, device, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, stream_),
        "download");
  finish();
  if (target != host) std::memcpy(host, target, static_cast<size_t>(bytes));
}

void CudaQueue::await_turn() {
  constexpr uint32_t kPatience = 1 << 14;  // looks, before the device is asked whether it has failed
  const std::atomic_ref<uint32_t> turn(*turn_);
  for (uint32_t looks = 1; turn.load(std::memory_order_acquire) != turns_; ++looks) {
    if (looks % kPatience != 0) continue;
    const cudaError_t status = cudaStreamQuery(stream_);
    if (status != cudaErrorNotReady) check(status, "operations");
  }
  staging_used_ = 0;
}

void CudaQueue::finish() {
  use_device();
  check(cudaStreamSynchronize(stream_), "operations");
  staging_used_ = 0;
}

}  // namespace volley::cuda
