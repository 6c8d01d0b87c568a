#include "core/base/thread_pool.h"

#include <fstream>
#include <memory>
#include <set>
#include <string>
#include <system_error>
#include <utility>

#include "core/base/error.h"

namespace volley {

ThreadPool::ThreadPool(int64_t threads) {
  VOLLEY_ASSERT(threads >= 1);
  try {
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
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  start_.notify_all();
  for (auto& worker : workers_) worker.join();
}

void ThreadPool::parallel_for(int64_t items, const std::function<void(int64_t)>& body) {
  if (workers_.empty() || items <= 1 || busy_.exchange(true)) {
    for (int64_t item = 0; item < items; ++item) body(item);
    return;
  }
  const auto free = [](std::atomic<bool>* busy) { *busy = false; };
  const std::unique_ptr<std::atomic<bool>, decltype(free)> release(&busy_, free);
  {
    std::lock_guard lock(mutex_);
    body_ = &body;
    items_ = items;
    next_.store(0, std::memory_order_relaxed);
    active_ = static_cast<int64_t>(workers_.size());
    failure_ = nullptr;
    ++loop_;
  }
  start_.notify_all();
  take_items(body, items);
  std::unique_lock lock(mutex_);
  // Also when an item failed: workers still use `body`.
  done_.wait(lock, [this] { return active_ == 0; });
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

void ThreadPool::take_items(const std::function<void(int64_t)>& body, int64_t items) {
  try {
    for (int64_t item = next_.fetch_add(1); item < items; item = next_.fetch_add(1)) body(item);
  } catch (...) {
    next_.store(items);  // nobody begins another item
    std::lock_guard lock(mutex_);
    if (!failure_) failure_ = std::current_exception();
  }
}

void ThreadPool::work() {
  uint64_t seen = 0;
  std::unique_lock lock(mutex_);
  while (true) {
    start_.wait(lock, [&] { return stopping_ || loop_ != seen; });
    if (stopping_) return;
    seen = loop_;
    const auto* body = body_;
    const int64_t items = items_;
    lock.unlock();
    take_items(*body, items);
    lock.lock();
    if (--active_ == 0) done_.notify_one();
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
