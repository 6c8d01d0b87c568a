#include "apps/text_renderer.h"

#include <utility>

#include "apps/output_place.h"
#include "core/base/error.h"
#include "core/io/atomic_file.h"
#include "core/io/untrusted_text.h"

namespace volley::apps {
namespace {

using text::TextAnswer;
using text::TextPiece;

// What a model writes is no command to the terminal: control characters are shown as U+FFFD.
std::string without_controls(std::string_view text) {
  constexpr std::string_view kReplacement = "\xEF\xBF\xBD";
  std::string safe;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const auto next = static_cast<unsigned char>(i + 1 < text.size() ? text[i + 1] : 0);
    if ((byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7f) {
      safe += kReplacement;
    } else if (byte == 0xc2 && next >= 0x80 && next < 0xa0) {
      safe += kReplacement;
      ++i;
    } else {
      safe += text[i];
    }
  }
  return safe;
}

}  // namespace

TextOutput::TextOutput(const TextFlags& flags, Console& console) : console_(console) {
  const std::string& out = flags.shared.out;
  if (out.empty() || out == "-") {
    if (out == "-" && flags.shared.json)
      throw Error("--out -: standard output is taken by --json", ErrorKind::kUsage);
    form_ = flags.shared.json ? Form::kNothing : Form::kStream;
    has_colors_ = flags.show_accept && console.colors_output();
    return;
  }
  path_ = out;
  const bool is_page = out.ends_with(".html") || out.ends_with(".htm");
  form_ = is_page ? Form::kPage : Form::kFile;
  if (flags.show_accept && !is_page) {
    throw Error(
        "--show-accept: --out " + out + " is a file without colours; a name that ends in .html is a page",
        ErrorKind::kUsage);
  }
  check_output_place(out, flags.shared);
}

void TextOutput::write(const std::string& text) {
  if (text.empty()) return;
  ends_line_ = text.ends_with('\n');
  if (form_ == Form::kStream) {
    console_.print(text);
  } else {
    text_ += text;
  }
}

void TextOutput::piece(const TextPiece& piece) {
  if (form_ == Form::kNothing) return;
  if (form_ == Form::kPage) return pieces_.push_back(piece);
  if (form_ == Form::kFile) return write(piece.text);
  const std::string text = console_.is_output_terminal() ? without_controls(piece.text) : piece.text;
  if (!has_colors_ || text.empty()) return write(text);
  // The line's end stays plain, so that `ends_line_` sees it.
  const size_t length = text.find_last_not_of('\n') + 1;
  if (length > 0)
    write("\x1b[" + std::string(accept_color(piece.step)) + "m" + text.substr(0, length) + "\x1b[0m");
  write(text.substr(length));
}

void TextOutput::end(const text::TextRequest& request, const TextAnswer& answer) {
  if (form_ == Form::kPage) {
    return answers_.push_back({.prompt = last_words(request.prompts[static_cast<size_t>(answer.index)]),
                               .answer = answer,
                               .forward_tokens = text::forward_tokens(request, answer),
                               .pieces = std::exchange(pieces_, {})});
  }
  if (form_ != Form::kNothing && !ends_line_) write("\n");
}

void TextOutput::commit(const std::string& method) {
  if (form_ != Form::kFile && form_ != Form::kPage) return;
  AtomicFile file(path_);
  file.write(form_ == Form::kPage ? accept_page(answers_, method) : text_);
  file.commit();
}

TextRenderer::TextRenderer(Context context) : context_(std::move(context)) {
  if (context_.events != nullptr)
    context_.events->write({{"event", "start"}, {"request", text::to_json(context_.request)}});
}

void TextRenderer::on_step(const StepEvent& event) {
  if (context_.events == nullptr) return;
  context_.events->write({{"event", "step"},
                          {"answer", event.generation},
                          {"step", event.step},
                          {"positions", event.positions},
                          {"tokens", event.tokens},
                          {"proposed", event.proposed},
                          {"accepted", event.accepted},
                          {"source", event.source},
                          {"done", event.done},
                          {"total", event.total}});
}

void TextRenderer::on_shift(const ShiftEvent& event) {
  if (context_.events == nullptr) return;
  context_.events->write({{"event", "shift"},
                          {"answer", event.generation},
                          {"step", event.step},
                          {"kept", event.kept},
                          {"dropped", event.dropped},
                          {"done", event.done}});
}

void TextRenderer::announce() {
  if (std::exchange(is_announced_, true) || context_.sources.empty()) return;
  const auto head = static_cast<size_t>(head_);
  context_.console.note(context_.console.faint(context_.sources[head] + ": " +
                                               printable(last_words(context_.request.prompts[head]), 100)));
}

void TextRenderer::show(const TextPiece& piece) {
  announce();
  context_.output.piece(piece);
}

void TextRenderer::on_piece(const TextPiece& piece) {
  if (context_.events != nullptr && !piece.text.empty())
    context_.events->write(
        {{"event", "text"}, {"answer", piece.index}, {"step", piece.step}, {"text", piece.text}});
  if (piece.index != head_) return waiting_[piece.index].push_back(piece);
  show(piece);
}

void TextRenderer::on_answer(const TextAnswer& answer) {
  // The run ends answers in order.
  announce();
  context_.output.end(context_.request, answer);
  if (context_.events != nullptr) {
    context_.events->write({{"event", "answer"},
                            {"answer", answer.index},
                            {"seed", answer.seed},
                            {"finish", text::finish_name(answer.finish)},
                            {"token_hash", answer.token_hash}});
  }
  if (answer.finish == text::Finish::kContext) {
    context_.console.note("the model's context of " +
                          std::to_string(answer.prompt_tokens + std::ssize(answer.tokens)) +
                          " tokens is full: the answer ends here");
  }
  if (answer.prompt_dropped > 0) {
    context_.console.note(
        "the prompt was too long for the model's context: " + std::to_string(answer.prompt_dropped) +
        " of its " + std::to_string(answer.prompt_tokens) + " tokens were dropped");
  }
  if (answer.shifts > 0) {
    context_.console.note(
        context_.console.faint("the model's context was full " + plural(answer.shifts, "time") +
                               ": each time half of what stood behind the tokens that are kept was dropped"));
  }
  if (answer.finish == text::Finish::kLength && context_.request.prompts.size() == 1) {
    context_.console.note(context_.console.faint("the answer was cut off at --max-tokens " +
                                                 std::to_string(context_.request.max_tokens)));
  }
  head_ = answer.index + 1;
  is_announced_ = false;
  const auto waiting = waiting_.find(head_);
  if (waiting == waiting_.end()) return;
  for (const TextPiece& piece : waiting->second) show(piece);
  waiting_.erase(waiting);
}

void TextRenderer::on_check(const CheckOutcome& outcome) {
  Console& console = context_.console;
  if (context_.events != nullptr) {
    context_.events->write({{"event", "check"},
                            {"answer", outcome.index},
                            {"tokens", outcome.tokens},
                            {"equal", outcome.equal}});
  }
  const std::string& decoder = context_.request.decoder.name;
  const std::string counts =
      std::to_string(outcome.equal) + " of " + std::to_string(outcome.tokens) + " tokens equal";
  const std::string forwards = "; " + decoder + " " + std::to_string(outcome.forwards) +
                               " forwards, sequential " + std::to_string(outcome.sequential_forwards);
  const std::string name = "answer " + std::to_string(outcome.index) + ": ";
  if (outcome.is_equal()) return console.note(name + console.good(counts) + forwards);
  console.note(name + console.bad("first difference at position " + std::to_string(outcome.position)) + ": " +
               decoder + " chose " + std::to_string(outcome.token) + ", sequential " +
               std::to_string(outcome.sequential_token) + "; " + counts + forwards);
}

void TextRenderer::finish(const text::TextResult& result) {
  if (context_.events == nullptr) return;
  context_.events->write({{"event", "end"},
                          {"answers", result.answers.size()},
                          {"forwards", result.statistics.forwards},
                          {"interrupted", result.interrupted}});
}

}  // namespace volley::apps
