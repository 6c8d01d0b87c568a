#include "tests/unit/apps/command.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <sstream>
#include <stdexcept>

namespace volley::test {
namespace {

using Pipe = std::array<int, 2>;

Pipe make_pipe() {
  Pipe ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
  return ends;
}

// A terminal's two ends, as a pipe's: what reads is the side that shows.
Pipe make_terminal() {
  Pipe ends{::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), -1};
  if (ends[0] < 0 || ::grantpt(ends[0]) != 0 || ::unlockpt(ends[0]) != 0)
    throw std::runtime_error("no terminal; is devpts mounted on /dev/pts?");
  ends[1] = ::open(::ptsname(ends[0]), O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (ends[1] < 0) throw std::runtime_error("no terminal; is devpts mounted on /dev/pts?");
  return ends;
}

void limit(int resource, const std::optional<int64_t>& bytes) {
  if (!bytes) return;
  const rlimit value{.rlim_cur = static_cast<rlim_t>(*bytes), .rlim_max = static_cast<rlim_t>(*bytes)};
  ::setrlimit(static_cast<__rlimit_resource>(resource), &value);
}

// Null-terminated strings as exec() takes them. They point into what they are made of.
std::vector<char*> exec_list(const std::vector<std::string>& texts) {
  std::vector<char*> list;
  for (const std::string& text : texts) list.push_back(const_cast<char*>(text.c_str()));
  list.push_back(nullptr);
  return list;
}

// "name=value" of this process's environment with the command's on top.
std::vector<std::string> environment_of(const Command& command) {
  std::vector<std::string> texts;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    if (!command.environment.contains(text.substr(0, text.find('=')))) texts.push_back(text);
  }
  for (const auto& [name, value] : command.environment) texts.push_back(name + "=" + value);
  return texts;
}

// Between fork() and exec(): the threads of this process (a test's servers) may have held any lock at that
// moment, the allocator's too, and nobody is left to release it. So nothing here allocates.
[[noreturn]] void become(const Command& command, char* const* words, char* const* environment, const Pipe& in,
                         const Pipe& out, const Pipe& err) {
  std::signal(SIGPIPE, SIG_DFL);
  if (!command.folder.empty() && ::chdir(command.folder.c_str()) != 0) ::_exit(99);
  ::dup2(err[1], STDERR_FILENO);
  const bool types = command.input_kind == StandardInput::kTerminal;
  if (command.input) ::dup2(in[types ? 1 : 0], STDIN_FILENO);
  switch (command.output) {
    case StandardOutput::kPipe:
      ::dup2(out[1], STDOUT_FILENO);
      break;
    case StandardOutput::kClosed:
      ::close(STDOUT_FILENO);
      break;
    case StandardOutput::kFull:
      ::dup2(::open("/dev/full", O_WRONLY), STDOUT_FILENO);
      break;
    case StandardOutput::kPipeWithoutReader:
      ::dup2(out[1], STDOUT_FILENO);
      ::close(out[0]);
      break;
  }
  limit(RLIMIT_AS, command.memory_limit);
  limit(RLIMIT_FSIZE, command.file_limit);
  ::execve(VOLLEY_PROGRAM, words, environment);
  ::_exit(98);
}

}  // namespace

std::vector<std::string> CommandResult::error_lines() const {
  std::vector<std::string> lines;
  std::istringstream stream(err);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

CommandResult run_command(const Command& command) {
  const bool types = command.input_kind == StandardInput::kTerminal;
  const Pipe in = types ? make_terminal() : make_pipe();
  if (command.input && ::write(in[types ? 0 : 1], command.input->data(), command.input->size()) !=
                           static_cast<ssize_t>(command.input->size())) {
    throw std::runtime_error("no room for the input");
  }
  const Pipe out = make_pipe();
  const Pipe err = command.error == StandardError::kTerminal ? make_terminal() : make_pipe();
  const winsize size{.ws_row = command.terminal_lines, .ws_col = 80, .ws_xpixel = 0, .ws_ypixel = 0};
  if (command.error == StandardError::kTerminal) ::ioctl(err[1], TIOCSWINSZ, &size);
  std::vector<std::string> arguments{"volley"};
  arguments.insert(arguments.end(), command.arguments.begin(), command.arguments.end());
  const std::vector<std::string> environment = environment_of(command);
  const std::vector<char*> word_list = exec_list(arguments), environment_list = exec_list(environment);
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("no process");
  if (child == 0) become(command, word_list.data(), environment_list.data(), in, out, err);
  ::close(in[types ? 1 : 0]);
  if (!types) ::close(in[1]);  // a terminal that is taken away ends what reads from it
  ::close(out[1]);
  ::close(err[1]);
  if (command.output == StandardOutput::kPipeWithoutReader) ::close(out[0]);

  CommandResult result;
  bool told = false;
  std::array<pollfd, 2> ends{pollfd{.fd = out[0], .events = POLLIN}, pollfd{.fd = err[0], .events = POLLIN}};
  if (command.output == StandardOutput::kPipeWithoutReader) ends[0].fd = -1;
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  bool is_killed = false;
  while (ends[0].fd >= 0 || ends[1].fd >= 0) {
    if (!is_killed && std::chrono::steady_clock::now() > deadline) {
      ::kill(child, SIGKILL);
      is_killed = true;
    }
    ::poll(ends.data(), ends.size(), 1000);
    for (size_t i = 0; i < ends.size(); ++i) {
      if (ends[i].fd < 0 || ends[i].revents == 0) continue;
      std::array<char, 65536> bytes;
      const ssize_t count = ::read(ends[i].fd, bytes.data(), bytes.size());
      if (count <= 0) {
        ::close(ends[i].fd);
        ends[i].fd = -1;
        continue;
      }
      (i == 0 ? result.out : result.err).append(bytes.data(), static_cast<size_t>(count));
      const bool came = command.awaited.empty() ? i == 0
                                                : result.out.find(command.awaited) != std::string::npos ||
                                                      result.err.find(command.awaited) != std::string::npos;
      if (came && !told && command.on_output) {
        told = true;
        command.on_output(child);
      }
    }
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  if (types) ::close(in[0]);
  if (WIFEXITED(status)) result.exit_code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) result.signal = WTERMSIG(status);
  if (is_killed) result.err += "\nkilled by the test after " + std::to_string(kPatience.count()) + " minutes";
  return result;
}

}  // namespace volley::test
