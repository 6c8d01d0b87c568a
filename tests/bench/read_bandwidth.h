#pragma once

// What memory can be read at: the floor of whatever reads weights.

#include <cstdint>
#include <string>

namespace volley {

// Bytes a second that `threads` threads read together from memory, each in 1, 2, 4 or 8 places in turn: the
// best of `passes` passes of each over `bytes` of memory, which should be several times the last-level cache.
struct BandwidthOptions {
  int64_t threads = 1;
  int64_t bytes = int64_t{2} << 30;
  int64_t passes = 4;
};
double read_bandwidth(const BandwidthOptions& options);

// Reads a file once, so that its pages are in the system's cache.
void read_whole_file(const std::string& path);

}  // namespace volley
