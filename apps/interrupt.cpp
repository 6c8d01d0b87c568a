#include "apps/interrupt.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <system_error>

#include "core/base/error.h"
#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace volley::apps {
namespace {

// A handler has no argument of ours: this is how it finds the guard that lives.
std::atomic<int> pipe_write_end{-1};
static_assert(std::atomic<int>::is_always_lock_free);

extern "C" void handle_interrupt(int number) {
  const int saved = errno;
  const char byte = number == SIGINT ? 'i' : 't';
  if (::write(pipe_write_end.load(), &byte, 1) < 0) {
    // Nobody to tell: the next signal ends the program in any case.
  }
  std::signal(number, SIG_DFL);
  errno = saved;
}

}  // namespace

InterruptGuard::InterruptGuard() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw Error("cannot make a pipe");
  read_end_ = ends[0];
  pipe_write_end = ends[1];
  try {
    start_relay();
  } catch (const std::system_error& error) {
    ::close(pipe_write_end.exchange(-1));
    ::close(read_end_);
    throw Error("cannot start a thread, not even the one that waits for interrupts: " +
                error.code().message() + " (too little memory, or too many threads)");
  }
  catch_signals();
}

void InterruptGuard::start_relay() {
  relay_ = std::thread([this, source = source_]() mutable {
    char byte = 0;
    while (::read(read_end_, &byte, 1) < 0 && errno == EINTR) {
    }
    caught_ = byte;
    if (byte != 0) source.request_stop();
  });
}

void InterruptGuard::catch_signals() {
  struct sigaction action {};
  action.sa_handler = handle_interrupt;
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

std::optional<std::stop_token> InterruptGuard::go_on() {
  if (!source_.stop_requested()) return std::nullopt;
  relay_.join();
  if (caught_ != 'i') {
    relay_ = std::thread();
    return std::nullopt;
  }
  caught_ = 0;
  source_ = std::stop_source();
  start_relay();
  catch_signals();
  return source_.get_token();
}

InterruptGuard::~InterruptGuard() {
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
  ::close(pipe_write_end.exchange(-1));
  if (relay_.joinable()) relay_.join();
  ::close(read_end_);
}

void prepare_process() {
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  for (int descriptor : {0, 1, 2}) {
    if (::fcntl(descriptor, F_GETFD) >= 0 || errno != EBADF) continue;
    // Opened the wrong way round, so that using it is an error as before.
    ::open("/dev/null", (descriptor == 0 ? O_WRONLY : O_RDONLY));
  }
#if defined(__GLIBC__)
  // glibc would keep freed blocks, ever larger ones: of a text model of 94 MiB 8 MiB more at the most.
  constexpr int kReturned = 1 << 20;  // bytes of a block, at least
  mallopt(M_MMAP_THRESHOLD, kReturned);
#endif
}

}  // namespace volley::apps
