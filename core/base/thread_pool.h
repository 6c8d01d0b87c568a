#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace volley {

// A fixed set of threads that share the items of one loop at a time. The caller works too. If the pool is
// busy with another caller's loop, the caller does all items itself: results never depend on who computes an
// item.
//
// Each thread has a stripe of neighbouring items (`stripe_begin`), which it takes from the first to the last.
// One that is done with its own, and still waits a moment later, helps another from the other end.
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

  int64_t threads() const { return threads_; }

  // Calls body(item) once for each item in [0, items), in any order, and returns when all are done; items
  // below 2^31. If an item throws, no further items begin and the first exception is thrown again here.
  void parallel_for(int64_t items, const std::function<void(int64_t item)>& body);
  // The same with the number of the thread that does an item, below threads(): in one loop no two items have
  // the same at the same time, so that it may name a piece of the loop's work memory.
  void parallel_for(int64_t items, const std::function<void(int64_t item, int64_t thread)>& body);

  // A thread's stripe of so many items: its first, and its end is the next one's.
  int64_t stripe_begin(int64_t thread, int64_t items) const { return items * thread / threads_; }

 private:
  // A loop of a few microseconds waits for every line of memory that changes hands. So a worker that is told
  // of a loop reads one line, and tells by another that it is done; what nobody writes is apart.

  // A loop's number in the upper half, its items in the lower. Numbers go round after 2^32 loops.
  using Loop = uint64_t;
  // What nobody has taken of a thread's stripe, in grains of neighbouring items: the first, the end above it,
  // and in the upper half the loop's number. With an older number the whole stripe is there to take.
  struct alignas(64) Stripe {
    std::atomic<uint64_t> untaken = 0;
  };

  void work(int64_t thread);
  void stop();
  void tell(Loop loop);  // the workers
  // Takes items of a loop until none of the stripe is left. Answers how many.
  int64_t take_stripe(Loop loop, int64_t stripe, int64_t thread);
  // The same of all others' stripes.
  int64_t help_others(Loop loop, int64_t thread);
  // Looks whether is_over() for a short while, and helps others if it is not soon; `finish` is told how many
  // items that were.
  template <typename IsOver, typename Finish>
  void look(Loop loop, int64_t thread, const IsOver& is_over, const Finish& finish);
  void run_item(int64_t item, int64_t thread);

  int64_t threads_ = 1;
  std::unique_ptr<Stripe[]> stripes_;
  int spins_ = 0;  // looks for work before a thread sleeps
  std::atomic<bool> stopping_ = false;
  std::atomic<bool> has_failed_ = false;  // an item of this loop
  std::mutex failure_mutex_;
  std::exception_ptr failure_;

  // Written by the caller. `body_` is read by those who took an item of the loop: it lasts until every taken
  // item is finished.
  alignas(64) std::atomic<Loop> loop_ = 0;
  // Its number, stored behind it: what sleeping workers wait on. Words of four bytes are the system's own to
  // wait on; others share the library's.
  std::atomic<uint32_t> told_ = 0;
  const std::function<void(int64_t, int64_t)>* body_ = nullptr;
  std::atomic<bool> busy_ = false;  // a loop is running; not a mutex, as a body may call parallel_for

  // Items that the workers have done, of all loops: what the caller waits on.
  alignas(64) std::atomic<uint32_t> finished_ = 0;

  alignas(64) std::vector<std::thread> workers_;
};

// Number of physical cores of this machine, at least 1.
int64_t physical_cores();

}  // namespace volley
