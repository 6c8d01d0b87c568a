#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace volley {

// A fixed set of threads that share the items of one loop at a time. The caller works too. If the pool is
// busy with another caller's loop, the caller does all items itself: results never depend on who computes an
// item.
class ThreadPool {
 public:
  // `threads` includes the caller; at least 1. Throws Error when the system starts no more.
  explicit ThreadPool(int64_t threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int64_t threads() const { return static_cast<int64_t>(workers_.size()) + 1; }

  // Calls body(item) once for each item in [0, items), in any order, and returns when all are done. If an
  // item throws, no further items begin and the first exception is thrown again here.
  void parallel_for(int64_t items, const std::function<void(int64_t item)>& body);

 private:
  void work();
  void stop();
  void take_items(const std::function<void(int64_t)>& body, int64_t items);

  std::vector<std::thread> workers_;
  std::atomic<bool> busy_ = false;  // a loop is running; not a mutex, as a body may call parallel_for
  std::mutex mutex_;
  std::condition_variable start_;
  std::condition_variable done_;
  const std::function<void(int64_t)>* body_ = nullptr;
  std::exception_ptr failure_;  // of the current loop
  int64_t items_ = 0;
  std::atomic<int64_t> next_ = 0;
  int64_t active_ = 0;  // workers that have not finished the current loop
  uint64_t loop_ = 0;   // counts loops, so that a worker joins each once
  bool stopping_ = false;
};

// Number of physical cores of this machine, at least 1.
int64_t physical_cores();

}  // namespace volley
