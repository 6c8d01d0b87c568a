#pragma once

#include <memory>
#include <optional>
#include <stop_token>
#include <string>

namespace volley::apps {

// Asks for lines at a terminal: editing keys, earlier lines by the arrow keys and Ctrl-R, as the user's
// ~/.editrc says. Lines are UTF-8 whatever the locale is.
// Ref: editline(3), editrc(5).
class LineEditor {
 public:
  // The prompt is written to standard error. Earlier lines are read from `history` and written back at the
  // end, readable for the user alone; empty: none are kept. A file that cannot be read or written is left
  // alone: the lines are this conversation's then.
  LineEditor(std::string prompt, std::string history);
  ~LineEditor();
  LineEditor(const LineEditor&) = delete;
  LineEditor& operator=(const LineEditor&) = delete;

  // The next line without its end; nothing behind Ctrl-D, or when `stop` asks.
  std::optional<std::string> next(const std::stop_token& stop);

 private:
  class Terminal;
  std::unique_ptr<Terminal> terminal_;
};

// Where conversations keep what was typed: $XDG_STATE_HOME/volley/chat_history, by default in
// ~/.local/state. Empty if the environment does not tell.
std::string chat_history_path();

}  // namespace volley::apps
