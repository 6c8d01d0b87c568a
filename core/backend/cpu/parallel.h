#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>

#include "core/base/thread_pool.h"

namespace volley {

// Work below this many nanoseconds is done by the caller: handing it to another thread costs about as much.
inline constexpr double kWorthSharing = 4000.0;

// Calls body(item) for each item, on all threads if the whole is worth it. `nanoseconds`: a rough guess of
// one thread's time for all items.
template <typename Body>
void share_items(ThreadPool& threads, int64_t items, double nanoseconds, const Body& body) {
  if (nanoseconds < kWorthSharing || threads.threads() == 1) {
    for (int64_t item = 0; item < items; ++item) body(item);
    return;
  }
  threads.parallel_for(items, std::cref(body));  // a reference: std::function then does not allocate
}

// Calls body(begin, end) for ranges that cover [0, count).
template <typename Body>
void share_ranges(ThreadPool& threads, int64_t count, double nanoseconds, const Body& body) {
  if (count == 0) return;
  if (nanoseconds < kWorthSharing || threads.threads() == 1) {
    body(int64_t{0}, count);
    return;
  }
  const int64_t pieces = std::min(count, 4 * threads.threads());
  share_items(threads, pieces, nanoseconds,
              [&](int64_t piece) { body(count * piece / pieces, count * (piece + 1) / pieces); });
}

}  // namespace volley
