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

// Looks before a thread helps others: a fraction of a microsecond, in which those of equal work are done. To
// look at a stripe takes its line of memory from its thread.
constexpr int kPatience = 16;

uint32_t number_of(uint64_t word) {
  return static_cast<uint32_t>(word >> 32);
}
uint64_t next_loop(uint64_t loop, int64_t items) {
  return uint64_t{number_of(loop) + 1} << 32 | static_cast<uint64_t>(items);
}
bool is_before(uint32_t number, uint32_t other) {
  return static_cast<int32_t>(number - other) < 0;
}

}  // namespace

ThreadPool::ThreadPool(int64_t threads) {
  VOLLEY_ASSERT(threads >= 1);
  // About a hundred microseconds. Where threads must take turns on a core, looking only keeps others waiting.
  constexpr int kSpins = 4000;
  spins_ = threads <= static_cast<int64_t>(std::thread::hardware_concurrency()) ? kSpins : 0;
  threads_ = threads;
  stripes_ = std::make_unique<Stripe[]>(static_cast<size_t>(threads));
  workers_.reserve(static_cast<size_t>(threads - 1));  // so that no thread is lost for want of memory
  try {
    for (int64_t i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(i); });
  } catch (const std::system_error&) {
    stop();  // those that started
    throw Error("cannot start " + std::to_string(threads) +
                " threads: out of memory or beyond the system's limit");
  } catch (...) {
    stop();
    throw;
  }
}

ThreadPool::~ThreadPool() {
  stop();
}

void ThreadPool::stop() {
  stopping_ = true;
  tell(next_loop(loop_, 0));
  for (auto& worker : workers_) worker.join();
}

void ThreadPool::tell(Loop loop) {
  loop_.store(loop, std::memory_order_release);
  told_.store(number_of(loop));
  told_.notify_all();
}

void ThreadPool::parallel_for(int64_t items, const std::function<void(int64_t)>& body) {
  parallel_for(items, [&](int64_t item, int64_t) { body(item); });
}

void ThreadPool::parallel_for(int64_t items, const std::function<void(int64_t, int64_t)>& body) {
  if (threads_ == 1 || items <= 1 || busy_.exchange(true)) {
    for (int64_t item = 0; item < items; ++item) body(item, 0);
    return;
  }
  VOLLEY_ASSERT(items <= INT32_MAX);
  const Loop loop = next_loop(loop_.load(std::memory_order_relaxed), items);
  if (number_of(loop) % (1u << 30) == 0) {  // a stripe that long had no items would seem to be ahead
    for (int64_t t = 0; t < threads_; ++t) stripes_[t].untaken = uint64_t{number_of(loop) - 1} << 32;
  }
  const uint32_t before = finished_.load(std::memory_order_relaxed);
  body_ = &body;
  tell(loop);
  uint32_t all = before + static_cast<uint32_t>(items - take_stripe(loop, 0, 0));
  look(
      loop, 0, [&] { return finished_.load(std::memory_order_acquire) == all; },
      [&](int64_t taken) { all -= static_cast<uint32_t>(taken); });
  for (uint32_t done = finished_.load(); done != all; done = finished_.load()) finished_.wait(done);
  std::exception_ptr failure;
  if (has_failed_.load(std::memory_order_relaxed)) {
    failure = std::exchange(failure_, nullptr);
    has_failed_ = false;
  }
  busy_.store(false, std::memory_order_release);
  if (failure) std::rethrow_exception(failure);
}

int64_t ThreadPool::take_stripe(Loop loop, int64_t stripe, int64_t thread) {
  constexpr int64_t kMostGrains = UINT16_MAX;
  const int64_t items = static_cast<int64_t>(loop & UINT32_MAX);
  const int64_t first = stripe_begin(stripe, items), end = stripe_begin(stripe + 1, items);
  const int64_t grain = (end - first) / kMostGrains + 1;
  const uint64_t whole = (loop >> 32 << 32) | static_cast<uint64_t>((end - first + grain - 1) / grain) << 16;
  std::atomic<uint64_t>& untaken = stripes_[stripe].untaken;
  int64_t taken = 0;
  for (uint64_t word = untaken.load(std::memory_order_acquire);;) {
    if (is_before(number_of(loop), number_of(word))) break;  // the loop is over
    const uint64_t left = number_of(word) == number_of(loop) ? word : whole;
    const uint64_t begin_grain = left & UINT16_MAX, end_grain = left >> 16 & UINT16_MAX;
    if (begin_grain == end_grain) break;
    const uint64_t rest = stripe == thread ? left + 1 : left - (1 << 16);
    if (!untaken.compare_exchange_weak(word, rest, std::memory_order_acq_rel)) continue;
    word = rest;
    const int64_t from = first + grain * static_cast<int64_t>(stripe == thread ? begin_grain : end_grain - 1);
    const int64_t to = std::min(from + grain, end);
    for (int64_t item = from; item < to; ++item) run_item(item, thread);
    taken += to - from;
  }
  return taken;
}

void ThreadPool::run_item(int64_t item, int64_t thread) {
  if (has_failed_.load(std::memory_order_relaxed)) return;
  try {
    (*body_)(item, thread);
  } catch (...) {
    std::lock_guard lock(failure_mutex_);
    if (!failure_) failure_ = std::current_exception();
    has_failed_ = true;
  }
}

int64_t ThreadPool::help_others(Loop loop, int64_t thread) {
  int64_t taken = 0;
  for (int64_t i = 1; i < threads_; ++i) taken += take_stripe(loop, (thread + i) % threads_, thread);
  return taken;
}

template <typename IsOver, typename Finish>
void ThreadPool::look(Loop loop, int64_t thread, const IsOver& is_over, const Finish& finish) {
  for (int spin = 0; spin < kPatience && spin < spins_; ++spin, pause()) {
    if (is_over()) return;
  }
  finish(help_others(loop, thread));
  for (int spin = 0; spin < spins_ && !is_over(); ++spin) pause();
}

void ThreadPool::work(int64_t thread) {
  const auto finish = [&](int64_t taken) {
    if (taken == 0) return;
    finished_.fetch_add(static_cast<uint32_t>(taken));
    finished_.notify_all();
  };
  Loop seen = 0;
  while (!stopping_) {
    finish(take_stripe(seen, thread, thread));
    look(
        seen, thread, [&] { return loop_.load(std::memory_order_relaxed) != seen; }, finish);
    // Waiting tells others, and that costs them, that somebody sleeps.
    if (loop_.load() == seen) told_.wait(number_of(seen));
    seen = loop_.load();
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
