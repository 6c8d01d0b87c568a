#include "tests/bench/machine.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <vector>

#include "core/base/error.h"
#include "core/base/thread_pool.h"
#include "core/decode/statistics.h"

namespace volley {

MemoryWatch::MemoryWatch()
    : thread_([this](const std::stop_token& stop) {
        while (!stop.stop_requested()) {
          look();
          std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
      }) {}

MemoryWatch::~MemoryWatch() = default;

int64_t MemoryWatch::take_peak() {
  look();
  return peak_.exchange(0);
}

// /proc/self/statm in pages: size, resident, resident of files and shared memory. Much cheaper to read than
// /proc/self/status, and from the same counters.
void MemoryWatch::look() {
  std::ifstream file("/proc/self/statm");
  int64_t size = 0, resident = 0, shared = 0;
  file >> size >> resident >> shared;
  const int64_t now = (resident - shared) * sysconf(_SC_PAGESIZE);
  int64_t peak = peak_.load();
  while (peak < now && !peak_.compare_exchange_weak(peak, now)) {
  }
}

double read_bandwidth(const BandwidthOptions& options) {
  const int64_t words = options.bytes / options.threads / 8;
  ThreadPool pool(options.threads);
  std::vector<std::vector<uint64_t>> parts(static_cast<size_t>(options.threads));
  // Each thread's part is its own pages.
  pool.parallel_for(options.threads, [&](int64_t t) {
    parts[static_cast<size_t>(t)].assign(static_cast<size_t>(words), static_cast<uint64_t>(t));
  });
  std::vector<uint64_t> sums(parts.size());
  double best = 0.0;
  for (int64_t pass = 0; pass < options.passes; ++pass) {
    double seconds = 0.0;
    {
      const StopWatch watch(seconds);
      pool.parallel_for(options.threads, [&](int64_t t) {
        uint64_t sum = 0;
        for (const uint64_t word : parts[static_cast<size_t>(t)]) sum += word;
        sums[static_cast<size_t>(t)] += sum;
      });
    }
    best = std::max(best, static_cast<double>(words * options.threads * 8) / seconds);
  }
  // The sums are known, so the reads cannot be left out unseen.
  for (size_t t = 0; t < sums.size(); ++t) {
    VOLLEY_ASSERT(sums[t] == t * static_cast<uint64_t>(words * options.passes));
  }
  return best;
}

std::string load_average() {
  std::ifstream file("/proc/loadavg");
  std::string one, five, fifteen;
  file >> one >> five >> fifteen;
  return one + " " + five + " " + fifteen;
}

void read_whole_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<char> buffer(size_t{4} << 20);
  while (file.read(buffer.data(), static_cast<std::streamsize>(buffer.size()))) {
  }
}

}  // namespace volley
