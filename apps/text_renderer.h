#pragma once

#include <map>
#include <string>
#include <vector>

#include "apps/accept_page.h"
#include "apps/event_file.h"
#include "apps/text_flags.h"
#include "apps/verbs.h"
#include "text/text_job.h"

namespace volley::apps {

// Where answers go: standard output as they come, or a file when all are there, or nowhere (--json).
class TextOutput {
 public:
  // Throws Error for a file that exists, unless --overwrite is given.
  TextOutput(const TextFlags& flags, Console& console);

  void piece(const text::TextPiece& piece);
  // An answer's last call. Ends its last line.
  void end(const text::TextRequest& request, const text::TextAnswer& answer);
  // Writes the file, if there is one; `method` is for a page.
  void commit(const std::string& method);

 private:
  void write(const std::string& text);

  enum class Form : uint8_t { kNothing, kStream, kFile, kPage };
  Form form_ = Form::kStream;
  bool has_colors_ = false;
  std::string path_;
  Console& console_;
  std::string text_;  // of the file
  bool ends_line_ = true;
  std::vector<text::TextPiece> pieces_;  // of the answer in the making, for a page
  std::vector<AcceptedAnswer> answers_;
};

// Renders one run: text in the prompts' order, events, checks. Of several answers made together the first
// that is not whole is shown as it comes.
class TextRenderer : public text::TextObserver {
 public:
  struct Context {
    const text::TextRequest& request;
    Console& console;
    TextOutput& output;
    EventFile* events = nullptr;
    std::vector<std::string> sources;  // of the prompts, shown before their answers; may be empty
  };
  explicit TextRenderer(Context context);

  void on_step(const StepEvent& event) override;
  void on_shift(const ShiftEvent& event) override;
  void on_piece(const text::TextPiece& piece) override;
  void on_answer(const text::TextAnswer& answer) override;
  void on_check(const CheckOutcome& outcome) override;
  void finish(const text::TextResult& result);

 private:
  void show(const text::TextPiece& piece);
  void announce();

  Context context_;
  int64_t head_ = 0;  // whose text is shown
  bool is_announced_ = false;
  std::map<int64_t, std::vector<text::TextPiece>> waiting_;
};

}  // namespace volley::apps
