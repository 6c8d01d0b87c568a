#include "apps/typed_input.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>

namespace volley::apps {

ssize_t read_typed(std::stop_token stop, std::span<char> block, const std::function<void()>& look) {
  constexpr int kBetweenLooks = 100;  // milliseconds
  while (!stop.stop_requested()) {
    if (look) look();
    pollfd input{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
    const int ready = ::poll(&input, 1, kBetweenLooks);
    if (ready == 0 || (ready < 0 && errno == EINTR)) continue;
    if (ready < 0) return -1;
    const ssize_t count = ::read(STDIN_FILENO, block.data(), block.size());
    if (count >= 0 || (errno != EINTR && errno != EAGAIN)) return count;
  }
  return 0;
}

}  // namespace volley::apps
