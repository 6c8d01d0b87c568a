#pragma once

#include <atomic>
#include <cstdint>

namespace volley {

// A number that no other call has given, from 1 on: names what addresses do not, as memory is handed out
// again.
inline int64_t next_serial() {
  static std::atomic<int64_t> last = 0;
  return ++last;
}

}  // namespace volley
