#include "core/backend/cuda/large_download.h"

#include <algorithm>
#include <cstring>

#include "core/backend/cuda/status.h"

namespace volley::cuda {
namespace {

constexpr int64_t kMostPieceBytes = 4 << 20;
constexpr int64_t kPieces = 8;  // at least
constexpr int64_t kMostCopiers = 8;

}  // namespace

ThreadPool& Copiers::threads() const {
  std::call_once(started_, [this] { threads_.emplace(std::min(kMostCopiers, physical_cores())); });
  return *threads_;
}

LargeDownload::LargeDownload(ThreadPool& copiers) : copiers_(copiers) {
  void* pinned = nullptr;
  check(cudaMallocHost(&pinned, static_cast<size_t>(2 * kMostPieceBytes)), "pinned memory");
  pieces_ = {static_cast<std::byte*>(pinned), static_cast<std::byte*>(pinned) + kMostPieceBytes};
  for (cudaEvent_t& event : full_) check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "event");
}

LargeDownload::~LargeDownload() {
  for (cudaEvent_t event : full_) cudaEventDestroy(event);
  cudaFreeHost(pieces_[0]);
}

void LargeDownload::run(const void* device, void* host, int64_t bytes, cudaStream_t stream) {
  const int64_t piece_bytes = std::min(kMostPieceBytes, (bytes + kPieces - 1) / kPieces);
  const int64_t count = (bytes + piece_bytes - 1) / piece_bytes, threads = copiers_.threads();
  const auto place = [](int64_t piece) { return static_cast<size_t>(piece % 2); };
  const auto size = [&](int64_t piece) { return std::min(piece_bytes, bytes - piece * piece_bytes); };
  const auto fill = [&](int64_t piece) {
    check(cudaMemcpyAsync(pieces_[place(piece)], static_cast<const std::byte*>(device) + piece * piece_bytes,
                          static_cast<size_t>(size(piece)), cudaMemcpyDeviceToHost, stream),
          "download");
    check(cudaEventRecord(full_[place(piece)], stream), "download");
  };
  fill(0);
  for (int64_t piece = 0; piece < count; ++piece) {
    if (piece + 1 < count) fill(piece + 1);
    check(cudaEventSynchronize(full_[place(piece)]), "download");
    const std::byte* const from = pieces_[place(piece)];
    std::byte* const to = static_cast<std::byte*>(host) + piece * piece_bytes;
    const int64_t share = (size(piece) + threads - 1) / threads;
    copiers_.parallel_for(threads, [&](int64_t thread) {
      const int64_t first = std::min(thread * share, size(piece)), end = std::min(first + share, size(piece));
      std::memcpy(to + first, from + first, static_cast<size_t>(end - first));
    });
  }
}

}  // namespace volley::cuda
