#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace volley::apps {

enum class Verbosity : uint8_t { kQuiet, kNormal, kVerbose };
enum class When : uint8_t { kAuto, kAlways, kNever };

// The terminal: results go to standard output, everything else to standard error.
class Console {
 public:
  Console();

  void set_verbosity(Verbosity verbosity) { verbosity_ = verbosity; }
  void set_color(When when);
  // Progress is drawn on a terminal only.
  void set_progress(When when);
  bool shows_progress() const { return shows_progress_; }

  // Standard output, flushed. Throws Error if it cannot be written.
  void print(std::string_view text);
  void print_line(std::string_view line);
  // Standard error; failures to write there are nobody's business.
  void note(std::string_view line);    // unless quiet
  void detail(std::string_view line);  // if verbose
  void error(std::string_view line);   // always, with the program's name in front
  // Standard error, without the end of a line: what a typed line stands behind.
  void ask(std::string_view prompt);
  // Replaces the line of progress; empty: takes it away.
  void progress(std::string_view line);

  // Whether colours are wanted on standard output: it is a terminal, or they were asked for.
  bool colors_output() const { return colors_output_; }
  bool is_output_terminal() const { return is_output_terminal_; }

  // Pictures are drawn where colours are: on a terminal, or when asked for.
  bool shows_pictures() const { return has_color_ && verbosity_ != Verbosity::kQuiet; }
  // Lines of a picture on standard error, in the place of the last one if nothing was written since.
  void picture(std::string_view lines);

  std::string good(std::string_view text) const { return colored(text, "32"); }
  std::string bad(std::string_view text) const { return colored(text, "31;1"); }
  std::string faint(std::string_view text) const { return colored(text, "2"); }

 private:
  std::string colored(std::string_view text, std::string_view code) const;
  void write_error_stream(std::string_view text);

  Verbosity verbosity_ = Verbosity::kNormal;
  bool has_color_ = false;
  bool colors_output_ = false;
  bool is_output_terminal_ = false;
  bool is_terminal_ = false;
  bool shows_progress_ = false;
  bool has_progress_line_ = false;
  int64_t picture_lines_ = 0;  // right above the cursor
};

// Characters of the terminal behind standard error, or 80 x 24.
struct TerminalSize {
  int64_t columns = 80;
  int64_t lines = 24;
};
TerminalSize terminal_size();

// "1.25" with the given number of decimals.
std::string fixed(double value, int decimals);
// The shortest text that reads back as the same number.
std::string shortest(double value);
// "3.2 MiB"
std::string byte_count(int64_t bytes);
// "1 picture", "16 pictures"
std::string plural(int64_t count, std::string_view noun);

}  // namespace volley::apps
