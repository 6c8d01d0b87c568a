#pragma once

#include <optional>
#include <stop_token>
#include <thread>

namespace volley::apps {

// While it lives, the first SIGINT or SIGTERM requests a stop, so that finished results are kept; the second
// ends the program. One at a time. For one thread.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

  std::stop_token token() const { return source_.get_token(); }
  // After a stop by SIGINT the program may go on with something else: the next signal stops that, by the
  // token that is returned. Nothing if no signal came or SIGTERM did.
  std::optional<std::stop_token> go_on();

 private:
  static void catch_signals();
  void start_relay();

  std::stop_source source_;
  char caught_ = 0;  // by the relay: 'i' SIGINT, 't' SIGTERM
  int read_end_ = -1;
  std::thread relay_;  // from the handler, which may do next to nothing, to the stop source
};

// Failures to write come back as errors, not as signals; descriptors 0 to 2 are taken, so that no file that
// is opened later is mistaken for a standard stream. Freed blocks of a MiB and more go back to the system.
void prepare_process();

}  // namespace volley::apps
