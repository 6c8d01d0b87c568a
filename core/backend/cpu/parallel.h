#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <type_traits>

#include "core/base/thread_pool.h"

namespace volley {

// Work below this many nanoseconds is done by the caller: handing it to another thread costs about as much.
inline constexpr double kWorthSharing = 4000.0;

// Calls body(item), or body(item, thread) as ThreadPool does, for each item, on all threads if the whole is
// worth it. `nanoseconds`: a rough guess of one thread's time for all items.
template <typename Body>
void share_items(ThreadPool& threads, int64_t items, double nanoseconds, const Body& body) {
  const auto call = [&](int64_t item, [[maybe_unused]] int64_t thread) {
    if constexpr (std::is_invocable_v<Body, int64_t, int64_t>) {
      body(item, thread);
    } else {
      body(item);
    }
  };
  if (nanoseconds < kWorthSharing || threads.threads() == 1) {
    for (int64_t item = 0; item < items; ++item) call(item, 0);
    return;
  }
  threads.parallel_for(items, std::cref(call));  // a reference: std::function then does not allocate
}

// Calls body(begin, end), or body(begin, end, thread), for ranges that cover [0, count).
template <typename Body>
void share_ranges(ThreadPool& threads, int64_t count, double nanoseconds, const Body& body) {
  if (count == 0) return;
  const auto call = [&](int64_t begin, int64_t end, [[maybe_unused]] int64_t thread) {
    if constexpr (std::is_invocable_v<Body, int64_t, int64_t, int64_t>) {
      body(begin, end, thread);
    } else {
      body(begin, end);
    }
  };
  if (nanoseconds < kWorthSharing || threads.threads() == 1) return call(0, count, 0);
  const int64_t pieces = std::min(count, 4 * threads.threads());
  share_items(threads, pieces, nanoseconds, [&](int64_t piece, int64_t thread) {
    call(count * piece / pieces, count * (piece + 1) / pieces, thread);
  });
}

}  // namespace volley
