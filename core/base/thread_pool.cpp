#include "core/base/thread_pool.h"

#include <algorithm>
#include <fstream>
#include <set>
#include <string>
#include <system_error>
#include <utility>

#include "core/base/error.h"

namespace volley {

namespace {

// Tells the processor that this is a waiting loop.
void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

}  // namespace

ThreadPool::ThreadPool(int64_t threads) {
  VOLLEY_ASSERT(threads >= 1);
  // About a hundred microseconds. Where threads must take turns on a core, looking only keeps others waiting.
  constexpr int kSpins = 4000;
  spins_ = threads <= static_cast<int64_t>(std::thread::hardware_concurrency()) ? kSpins : 0;
  try {
    workers_.reserve(static_cast<size_t>(threads - 1));  // so that no thread is lost for want of memory
    for (int64_t i = 1; i < threads; ++i) workers_.emplace_back([this] { work(); });
  } catch (const std::system_error&) {
    stop();  // those that started
    throw Error("cannot start " + std::to_string(threads) +
                " threads: out of memory or beyond the system's limit");
  }
}

ThreadPool::~ThreadPool() {
  stop();
}

void ThreadPool::stop() {
  stopping_ = true;
  loops_.fetch_add(1);
  loops_.notify_all();
  for (auto& worker : workers_) worker.join();
}

void ThreadPool::parallel_for(int64_t items, const std::function<void(int64_t)>& body) {
  if (workers_.empty() || items <= 1 || busy_.exchange(true)) {
    for (int64_t item = 0; item < items; ++item) body(item);
    return;
  }
  VOLLEY_ASSERT(items <= INT32_MAX);
  body_ = &body;
  items_ = items;
  unfinished_.store(static_cast<int32_t>(items), std::memory_order_relaxed);
  untaken_.store(items, std::memory_order_release);
  loops_.fetch_add(1);
  loops_.notify_all();
  take_items();
  for (int spin = 0; spin < spins_ && unfinished_.load(std::memory_order_acquire) > 0; ++spin) pause();
  for (int32_t left = unfinished_.load(); left > 0; left = unfinished_.load()) unfinished_.wait(left);
  const std::exception_ptr failure = std::exchange(failure_, nullptr);
  busy_ = false;
  if (failure) std::rethrow_exception(failure);
}

void ThreadPool::take_items() {
  int64_t untaken = untaken_.load(std::memory_order_acquire);
  while (untaken > 0) {
    if (!untaken_.compare_exchange_weak(untaken, untaken - 1, std::memory_order_acq_rel)) continue;
    run_item(items_ - untaken);
    untaken = untaken_.load(std::memory_order_acquire);
  }
}

void ThreadPool::run_item(int64_t item) {
  try {
    (*body_)(item);
  } catch (...) {
    {
      std::lock_guard lock(failure_mutex_);
      if (!failure_) failure_ = std::current_exception();
    }
    // Nobody begins another item.
    finish_items(static_cast<int32_t>(untaken_.exchange(0)));
  }
  finish_items(1);
}

void ThreadPool::finish_items(int32_t count) {
  if (count > 0 && unfinished_.fetch_sub(count, std::memory_order_acq_rel) == count) unfinished_.notify_all();
}

void ThreadPool::work() {
  int32_t seen = loops_.load();
  while (!stopping_) {
    take_items();
    for (int spin = 0; spin < spins_ && loops_.load(std::memory_order_relaxed) == seen; ++spin) pause();
    loops_.wait(seen);
    seen = loops_.load();
  }
}

int64_t physical_cores() {
  std::set<std::pair<int, int>> cores;  // (package, core)
  std::ifstream info("/proc/cpuinfo");
  int package = 0;
  for (std::string line; std::getline(info, line);) {
    const auto colon = line.find(':');
    if (colon == std::string::npos) continue;
    if (line.starts_with("physical id")) package = std::atoi(line.c_str() + colon + 1);
    if (line.starts_with("core id")) cores.emplace(package, std::atoi(line.c_str() + colon + 1));
  }
  const int64_t logical = std::max<int64_t>(1, std::thread::hardware_concurrency());
  return cores.empty() ? logical : std::min(logical, static_cast<int64_t>(cores.size()));
}

}  // namespace volley
