#include "tests/bench/read_bandwidth.h"

#include <sys/mman.h>

#include <algorithm>
#include <fstream>
#include <span>
#include <vector>

#include "core/base/error.h"
#include "core/base/thread_pool.h"
#include "core/decode/statistics.h"

namespace volley {
namespace {

// Anonymous memory in huge pages where the system grants them: what is measured is memory, not page tables.
class HugePages {
 public:
  explicit HugePages(size_t bytes) : bytes_(bytes) {
    memory_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory_ == MAP_FAILED) throw Error("no memory to measure reading with");
    madvise(memory_, bytes_, MADV_HUGEPAGE);
  }
  ~HugePages() { munmap(memory_, bytes_); }
  HugePages(const HugePages&) = delete;
  HugePages& operator=(const HugePages&) = delete;

  std::span<uint64_t> words() const { return {static_cast<uint64_t*>(memory_), bytes_ / 8}; }

 private:
  size_t bytes_;
  void* memory_;
};

// The sum of all words, read in `streams` places in turn.
uint64_t sum_of(std::span<const uint64_t> words, int64_t streams) {
  constexpr size_t kPiece = 128;  // 1 KiB
  const size_t stride = words.size() / static_cast<size_t>(streams);
  uint64_t sum = 0;
  for (size_t at = 0; at < stride; at += kPiece) {
    for (int64_t s = 0; s < streams; ++s) {
      for (const uint64_t word : words.subspan(static_cast<size_t>(s) * stride + at, kPiece)) sum += word;
    }
  }
  return sum;
}

}  // namespace

double read_bandwidth(const BandwidthOptions& options) {
  const int64_t words = options.bytes / options.threads / 8 / 1024 * 1024;  // whole pieces of all streams
  ThreadPool pool(options.threads);
  const HugePages memory(static_cast<size_t>(options.bytes));
  const auto part = [&](int64_t t) {
    return memory.words().subspan(static_cast<size_t>(t * words), static_cast<size_t>(words));
  };
  pool.parallel_for(options.threads,
                    [&](int64_t t) { std::ranges::fill(part(t), static_cast<uint64_t>(t)); });
  // Some processors read faster in several places at a time, others in one: the best of all counts.
  std::vector<uint64_t> sums(static_cast<size_t>(options.threads));
  double best = 0.0;
  int64_t passes = 0;
  for (const int64_t streams : {1, 2, 4, 8}) {
    for (int64_t pass = 0; pass < options.passes; ++pass, ++passes) {
      double seconds = 0.0;
      {
        const StopWatch watch(seconds);
        pool.parallel_for(options.threads,
                          [&](int64_t t) { sums[static_cast<size_t>(t)] += sum_of(part(t), streams); });
      }
      best = std::max(best, static_cast<double>(words * options.threads * 8) / seconds);
    }
  }
  // The sums are known, so the reads cannot be left out unseen.
  for (size_t t = 0; t < sums.size(); ++t)
    VOLLEY_ASSERT(sums[t] == t * static_cast<uint64_t>(words * passes));
  return best;
}

void read_whole_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<char> buffer(size_t{4} << 20);
  while (file.read(buffer.data(), static_cast<std::streamsize>(buffer.size()))) {
  }
}

}  // namespace volley
