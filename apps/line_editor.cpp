#include "apps/line_editor.h"

#include <histedit.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <utility>

#include "apps/typed_input.h"
#include "core/base/error.h"
#include "text/tokenizer/unicode.h"

namespace volley::apps {
namespace {

namespace fs = std::filesystem;

constexpr int kKeptLines = 1000;
constexpr wchar_t kReplacement = 0xFFFD;

// Bytes that follow such a first byte of a character; none behind one that cannot be first.
int following_bytes(unsigned char first) {
  if (first < 0xC2 || first > 0xF4) return 0;
  return first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : 1;
}

}  // namespace

class LineEditor::Terminal {
 public:
  Terminal(std::string_view prompt, std::string history)
      : prompt_(prompt.begin(), prompt.end()), history_path_(std::move(history)) {
    // What is shown goes through the locale; "C" knows no character beyond ASCII.
    if (std::setlocale(LC_CTYPE, "C.UTF-8") == nullptr) std::setlocale(LC_CTYPE, "");
    history_ = ::history_winit();
    editor_ = ::el_init("volley", stdin, stderr, stderr);
    if (history_ == nullptr || editor_ == nullptr) {
      close();
      throw Error("the terminal cannot be used for typing");
    }
    HistEventW event;
    ::history_w(history_, &event, H_SETSIZE, kKeptLines);
    ::history_w(history_, &event, H_SETUNIQUE, 1);
    if (!history_path_.empty()) {
      const bool is_read = ::history_w(history_, &event, H_LOAD, history_path_.c_str()) >= 0;
      std::error_code code;
      if (!is_read && fs::exists(history_path_, code)) history_path_.clear();  // somebody else's
    }
    ::el_wset(editor_, EL_CLIENTDATA, this);
    ::el_wset(editor_, EL_PROMPT, &Terminal::prompt);
    ::el_wset(editor_, EL_EDITOR, L"emacs");
    ::el_wset(editor_, EL_HIST, history_w, history_);
    ::el_wset(editor_, EL_BIND, L"^R", L"em-inc-search-prev", nullptr);
    ::el_wset(editor_, EL_GETCFN, &Terminal::read);
    ::el_source(editor_, nullptr);
  }
  ~Terminal() {
    save_history();
    close();
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  std::optional<std::string> next(const std::stop_token& stop) {
    stop_ = stop;
    int count = 0;
    const wchar_t* typed = ::el_wgets(editor_, &count);
    if (typed == nullptr || count <= 0 || stop_.stop_requested()) return std::nullopt;
    std::string line;
    for (int i = 0; i < count && typed[i] != L'\n' && typed[i] != L'\r'; ++i)
      text::append_utf8(line, static_cast<char32_t>(typed[i]));
    if (line.empty()) return line;
    HistEventW event;
    ::history_w(history_, &event, H_ENTER, typed);
    is_changed_ = true;
    return line;
  }

 private:
  static Terminal& of(EditLine* editor) {
    void* terminal = nullptr;
    ::el_wget(editor, EL_CLIENTDATA, &terminal);
    return *static_cast<Terminal*>(terminal);
  }
  static wchar_t* prompt(EditLine* editor) { return of(editor).prompt_.data(); }
  static int read(EditLine* editor, wchar_t* character) { return of(editor).read_character(*character); }

  // As editline's read functions: 1 for a character, 0 at the end, -1 for an error.
  int read_character(wchar_t& character) {
    unsigned char first = 0;
    const int status = read_byte(first);
    if (status <= 0) return status;
    std::string bytes(1, static_cast<char>(first));
    for (int following = following_bytes(first); following > 0; --following) {
      unsigned char byte = 0;
      if (read_byte(byte) <= 0) break;
      if ((byte & 0xC0) != 0x80) {
        held_ = byte;  // the character was broken; this begins another
        break;
      }
      bytes += static_cast<char>(byte);
    }
    const text::Character read = text::character_at(bytes, 0);
    character = read.code == text::kBadByte ? kReplacement : static_cast<wchar_t>(read.code);
    return 1;
  }

  int read_byte(unsigned char& byte) {
    if (held_) {
      byte = *std::exchange(held_, std::nullopt);
      return 1;
    }
    char read = 0;
    const auto count = static_cast<int>(read_typed(stop_, {&read, 1}, [this] { look_at_terminal(); }));
    byte = static_cast<unsigned char>(read);
    return count;
  }

  // A window of another size, and what a shell did to the terminal while this was stopped (Ctrl-Z).
  void look_at_terminal() {
    winsize size{};
    if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 &&
        (size.ws_col != columns_ || size.ws_row != lines_)) {
      if (columns_ > 0) ::el_resize(editor_);
      columns_ = size.ws_col;
      lines_ = size.ws_row;
    }
    termios mode{};
    if (::tcgetattr(STDIN_FILENO, &mode) == 0 && (mode.c_lflag & ICANON) != 0) {
      ::el_wset(editor_, EL_PREP_TERM, 0);
      ::el_wset(editor_, EL_PREP_TERM, 1);
      ::el_wset(editor_, EL_REFRESH, nullptr);
    }
  }

  // A whole file or none: another conversation may write its own at the same time.
  void save_history() {
    if (history_path_.empty() || !is_changed_) return;
    std::error_code code;
    fs::create_directories(fs::path(history_path_).parent_path(), code);
    const std::string part = history_path_ + "." + std::to_string(::getpid());
    HistEventW event;
    if (::history_w(history_, &event, H_SAVE, part.c_str()) >= 0) fs::rename(part, history_path_, code);
    fs::remove(part, code);
  }

  void close() {
    if (editor_ != nullptr) ::el_end(editor_);
    if (history_ != nullptr) ::history_wend(history_);
  }

  std::stop_token stop_;  // of the line that is read
  std::wstring prompt_;
  std::string history_path_;
  HistoryW* history_ = nullptr;
  EditLine* editor_ = nullptr;
  bool is_changed_ = false;
  std::optional<unsigned char> held_;  // read too far
  int columns_ = 0, lines_ = 0;        // of the window; 0: not looked at yet
};

LineEditor::LineEditor(std::string prompt, std::string history)
    : terminal_(std::make_unique<Terminal>(prompt, std::move(history))) {}

LineEditor::~LineEditor() = default;

std::optional<std::string> LineEditor::next(const std::stop_token& stop) {
  return terminal_->next(stop);
}

std::string chat_history_path() {
  const char* stated = std::getenv("XDG_STATE_HOME");
  fs::path folder = stated == nullptr ? "" : stated;
  if (!folder.is_absolute()) {
    const char* home = std::getenv("HOME");
    if (home == nullptr || *home == '\0') return "";
    folder = fs::path(home) / ".local" / "state";
  }
  return folder / "volley" / "chat_history";
}

}  // namespace volley::apps
