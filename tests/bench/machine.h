#pragma once

// What the machine does while a benchmark runs: memory of the process, read bandwidth, load.

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>

namespace volley {

// Anonymous memory of this process (RssAnon of /proc/self/status), looked at every millisecond while the
// object lives. Mapped files do not count: their pages are the system's.
class MemoryWatch {
 public:
  MemoryWatch();
  ~MemoryWatch();
  MemoryWatch(const MemoryWatch&) = delete;
  MemoryWatch& operator=(const MemoryWatch&) = delete;

  // The highest value since the last call.
  int64_t take_peak();

 private:
  void look();

  std::atomic<int64_t> peak_ = 0;
  std::jthread thread_;
};

// Bytes a second that `threads` threads read together from memory, each in 1, 2, 4 or 8 places in turn: the
// best of `passes` passes of each over `bytes` of memory, which should be several times the last-level cache.
struct BandwidthOptions {
  int64_t threads = 1;
  int64_t bytes = int64_t{2} << 30;
  int64_t passes = 4;
};
double read_bandwidth(const BandwidthOptions& options);

// The first three fields of /proc/loadavg.
std::string load_average();

// Reads a file once, so that its pages are in the system's cache.
void read_whole_file(const std::string& path);

}  // namespace volley
