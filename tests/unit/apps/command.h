#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace volley::test {

enum class StandardOutput : uint8_t { kPipe, kClosed, kFull, kPipeWithoutReader };
enum class StandardInput : uint8_t { kPipe, kTerminal };
enum class StandardError : uint8_t { kPipe, kTerminal };

// One run of the volley command.
struct Command {
  std::vector<std::string> arguments;
  std::string folder;                              // to run in
  std::map<std::string, std::string> environment;  // on top of this process's
  StandardOutput output = StandardOutput::kPipe;
  StandardError error = StandardError::kPipe;
  uint16_t terminal_lines = 24;  // of one behind standard error, which has 80 columns
  StandardInput input_kind = StandardInput::kPipe;
  std::optional<std::string> input;      // of standard input, at most a pipe full; none: this process's
  std::optional<int64_t> memory_limit;   // bytes of address space
  std::optional<int64_t> file_limit;     // bytes of a file
  std::function<void(pid_t)> on_output;  // called once, when `awaited` came
  std::string awaited;                   // on either stream; empty: anything on standard output
};

struct CommandResult {
  int exit_code = -1;
  int signal = 0;  // that ended it
  std::string out;
  std::string err;

  // The whole of standard error, which must be this many lines.
  std::vector<std::string> error_lines() const;
};

// How long a test waits for what must come. It is there to end tests of a program that hangs and bounds no
// speed: what takes seconds takes minutes under a sanitizer on a busy machine.
inline constexpr std::chrono::minutes kPatience{10};

// Runs it to its end; when patience ends it is killed, and `err` says so.
CommandResult run_command(const Command& command);

}  // namespace volley::test
