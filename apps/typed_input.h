#pragma once

#include <sys/types.h>

#include <functional>
#include <span>
#include <stop_token>

namespace volley::apps {

// Reads what standard input has, at least a byte unless it is at its end: 0 there, and when the program is to
// stop, which a plain read would not notice; -1, with errno, when it cannot be read. While it waits it looks
// up ten times a second, and calls `look` if there is one.
ssize_t read_typed(std::stop_token stop, std::span<char> block, const std::function<void()>& look = {});

}  // namespace volley::apps
