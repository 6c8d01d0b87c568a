#include "apps/console.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <system_error>

#include "core/base/error.h"

namespace volley::apps {
namespace {

// Bytes of `text` that take at most `columns` places, not cut within a character.
size_t prefix_of_columns(std::string_view text, size_t columns) {
  size_t used = 0, i = 0;
  while (i < text.size()) {
    const bool is_start = (static_cast<unsigned char>(text[i]) & 0xc0) != 0x80;
    if (is_start && used++ == columns) break;
    ++i;
  }
  return i;
}

}  // namespace

TerminalSize terminal_size() {
  winsize size{};
  TerminalSize found;
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0) return found;
  if (size.ws_col > 0) found.columns = size.ws_col;
  if (size.ws_row > 0) found.lines = size.ws_row;
  return found;
}

Console::Console()
    : is_output_terminal_(::isatty(STDOUT_FILENO) == 1), is_terminal_(::isatty(STDERR_FILENO) == 1) {
  set_color(When::kAuto);
  set_progress(When::kAuto);
}

void Console::set_color(When when) {
  const char* no_color = std::getenv("NO_COLOR");
  const char* terminal = std::getenv("TERM");
  const bool is_fit = (no_color == nullptr || *no_color == '\0') &&
                      (terminal == nullptr || std::string_view(terminal) != "dumb");
  const auto has = [&](bool is_terminal) {
    return when == When::kAlways || (when == When::kAuto && is_terminal && is_fit);
  };
  has_color_ = has(is_terminal_);
  colors_output_ = has(is_output_terminal_);
}

void Console::set_progress(When when) {
  shows_progress_ = is_terminal_ && when != When::kNever;
}

std::string Console::colored(std::string_view text, std::string_view code) const {
  if (!has_color_) return std::string(text);
  return "\x1b[" + std::string(code) + "m" + std::string(text) + "\x1b[0m";
}

void Console::print(std::string_view text) {
  progress({});
  picture_lines_ = 0;
  while (!text.empty()) {
    const ssize_t count = ::write(STDOUT_FILENO, text.data(), text.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw Error("standard output: cannot write: " + std::generic_category().message(errno));
    text.remove_prefix(static_cast<size_t>(count));
  }
}

void Console::print_line(std::string_view line) {
  print(std::string(line) + "\n");
}

void Console::write_error_stream(std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = ::write(STDERR_FILENO, text.data(), text.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return;
    text.remove_prefix(static_cast<size_t>(count));
  }
}

void Console::note(std::string_view line) {
  if (verbosity_ == Verbosity::kQuiet) return;
  progress({});
  picture_lines_ = 0;
  write_error_stream(std::string(line) + "\n");
}

void Console::detail(std::string_view line) {
  if (verbosity_ == Verbosity::kVerbose) note(line);
}

void Console::ask(std::string_view prompt) {
  progress({});
  picture_lines_ = 0;
  write_error_stream(prompt);
}

void Console::picture(std::string_view lines) {
  progress({});
  const std::string back = picture_lines_ > 0 ? "\x1b[" + std::to_string(picture_lines_) + "A" : "";
  write_error_stream(back + std::string(lines));
  picture_lines_ = std::ranges::count(lines, '\n');
}

void Console::error(std::string_view line) {
  progress({});
  picture_lines_ = 0;
  write_error_stream(bad("volley:") + " " + std::string(line) + "\n");
}

void Console::progress(std::string_view line) {
  if (!shows_progress_ || (line.empty() && !has_progress_line_)) return;
  // One column stays free: a full line would wrap and stay.
  const size_t length = prefix_of_columns(line, static_cast<size_t>(terminal_size().columns - 1));
  write_error_stream("\r" + std::string(line.substr(0, length)) + "\x1b[K" + (line.empty() ? "\r" : ""));
  has_progress_line_ = !line.empty();
}

std::string fixed(double value, int decimals) {
  std::array<char, 64> text;
  const int length = std::snprintf(text.data(), text.size(), "%.*f", decimals, value);
  return {text.data(), static_cast<size_t>(std::clamp(length, 0, 63))};
}

std::string shortest(double value) {
  std::array<char, 64> text;
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
  return {text.data(), end};
}

std::string byte_count(int64_t bytes) {
  constexpr std::array<const char*, 5> kUnits{"bytes", "KiB", "MiB", "GiB", "TiB"};
  if (bytes < 1024) return std::to_string(bytes) + " bytes";
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  for (; value >= 1024.0 && unit + 1 < kUnits.size(); ++unit) value /= 1024.0;
  return fixed(value, 1) + " " + kUnits[unit];
}

std::string plural(int64_t count, std::string_view noun) {
  return std::to_string(count) + " " + std::string(noun) + (count == 1 ? "" : "s");
}

}  // namespace volley::apps
