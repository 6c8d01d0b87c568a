#pragma once

#include <atomic>
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
//
// Between loops a thread keeps looking for the next one for a short while before it sleeps, so that the many
// short loops of a decoding step do not each pay for waking it. A loop never waits for a thread that has not
// begun an item of it.
class ThreadPool {
 public:
  // `threads` includes the caller; at least 1. Throws Error when the system starts no more.
  explicit ThreadPool(int64_t threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int64_t threads() const { return static_cast<int64_t>(workers_.size()) + 1; }

  // Calls body(item) once for each item in [0, items), in any order, and returns when all are done; items
  // below 2^31. If an item throws, no further items begin and the first exception is thrown again here.
  void parallel_for(int64_t items, const std::function<void(int64_t item)>& body);

 private:
  void work();
  void stop();
  // Takes items until none is left to take.
  void take_items();
  void run_item(int64_t item);
  void finish_items(int32_t count);

  std::vector<std::thread> workers_;
  int spins_ = 0;                   // looks for work before a thread sleeps
  std::atomic<bool> busy_ = false;  // a loop is running; not a mutex, as a body may call parallel_for
  std::atomic<bool> stopping_ = false;
  std::atomic<int32_t> loops_ = 0;  // counts loops; what sleeping workers wait on

  // The loop that runs. Written by its caller while `untaken_` is 0, read by those who took an item: a loop
  // lasts until every taken item is finished.
  const std::function<void(int64_t)>* body_ = nullptr;
  int64_t items_ = 0;
  std::atomic<int64_t> untaken_ = 0;
  std::atomic<int32_t> unfinished_ = 0;  // what the caller waits on
  std::mutex failure_mutex_;
  std::exception_ptr failure_;
};

// Number of physical cores of this machine, at least 1.
int64_t physical_cores();

}  // namespace volley
