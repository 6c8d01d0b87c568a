#pragma once

#include <stop_token>
#include <thread>

namespace volley::apps {

// While it lives, the first SIGINT or SIGTERM requests a stop, so that finished results are kept; the second
// ends the program. One at a time.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

  std::stop_token token() const { return source_.get_token(); }

 private:
  std::stop_source source_;
  int read_end_ = -1;
  std::thread relay_;  // from the handler, which may do next to nothing, to the stop source
};

// Failures to write come back as errors, not as signals; descriptors 0 to 2 are taken, so that no file that
// is opened later is mistaken for a standard stream. Freed blocks of a MiB and more go back to the system.
void prepare_process();

}  // namespace volley::apps
