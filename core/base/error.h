#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace volley {

// What a failure means to the caller; the command line turns it into an exit code (1, 2, 4).
enum class ErrorKind {
  kFailed,        // device failure, unwritable output, bad file contents
  kUsage,         // the request itself is wrong: unknown flag, name or value
  kModelMissing,  // no such model, or access is needed
};

// A user's mistake or a device failure. `what()` is one line that names the file, tensor or flag and the
// fault, with expected and actual values where there are any.
class Error : public std::runtime_error {
 public:
  explicit Error(std::string message, ErrorKind kind = ErrorKind::kFailed)
      : std::runtime_error(std::move(message)), kind_(kind) {}
  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

// Why untrusted bytes were refused. One line, without the file's name: the caller knows it.
struct Fault {
  std::string message;
};

// Value or Fault: what every reader of untrusted bytes returns. Readers never throw on file contents and
// never abort; `value_or_throw` is where a front end turns a Fault into an Error that names the file.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Fault fault) : state_(std::in_place_index<1>, std::move(fault)) {}

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }
  T& value() & { return std::get<0>(state_); }
  const T& value() const& { return std::get<0>(state_); }
  T&& value() && { return std::get<0>(std::move(state_)); }
  const Fault& fault() const { return std::get<1>(state_); }

  // Throws Error("<subject>: <fault>") unless ok.
  T value_or_throw(std::string_view subject) && {
    if (!ok()) throw Error(std::string(subject) + ": " + fault().message);
    return std::get<0>(std::move(state_));
  }

 private:
  std::variant<T, Fault> state_;
};

namespace detail {
[[noreturn]] inline void assertion_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "%s:%d: broken invariant: %s\n", file, line, condition);
  std::abort();
}
}  // namespace detail

}  // namespace volley

// A broken invariant of our own code: never reachable from file contents or user input.
#define VOLLEY_ASSERT(condition) \
  ((condition) ? static_cast<void>(0) : ::volley::detail::assertion_failed(#condition, __FILE__, __LINE__))
