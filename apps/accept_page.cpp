#include "apps/accept_page.h"

#include <array>

#include "apps/console.h"
#include "apps/markup.h"

namespace volley::apps {
namespace {

constexpr std::array<const char*, 5> kTerminalColors{"32", "36", "33", "35", "34"};

// One step's pieces as a span.
std::string span_of(std::span<const text::TextPiece> pieces) {
  std::string text;
  int64_t tokens = 0;
  for (const text::TextPiece& piece : pieces) {
    text += piece.text;
    tokens += piece.token >= 0;
  }
  if (text.empty()) return {};
  const int64_t step = pieces.front().step;
  return "<span class=\"c" + std::to_string(step % std::ssize(kTerminalColors)) + "\" title=\"step " +
         std::to_string(step) + ": " + plural(tokens, "token") + "\">" + escaped_markup(text) + "</span>";
}

std::string section_of(const AcceptedAnswer& accepted) {
  const text::TextAnswer& answer = accepted.answer;
  std::string html = "<section>\n<h2>" + escaped_markup(accepted.prompt) + "</h2>\n<p class=\"answer\">";
  const std::span<const text::TextPiece> pieces = accepted.pieces;
  for (size_t begin = 0; begin < pieces.size();) {
    size_t end = begin;
    while (end < pieces.size() && pieces[end].step == pieces[begin].step) ++end;
    html += span_of(pieces.subspan(begin, end - begin));
    begin = end;
  }
  const double rate = answer.forwards > 0 ? static_cast<double>(accepted.forward_tokens) /
                                                static_cast<double>(answer.forwards)
                                          : 0.0;
  return html + "</p>\n<p class=\"counts\">" + plural(std::ssize(answer.tokens), "token") + ", " +
         plural(answer.forwards, "forward") + ", " + fixed(rate, 2) + " tokens a forward; seed " +
         std::to_string(answer.seed) + "; ended by " + std::string(text::finish_name(answer.finish)) +
         "</p>\n</section>\n";
}

constexpr const char* kStyle =
    "body{max-width:50rem;margin:2rem auto;padding:0 1rem;font:16px/1.6 system-ui,sans-serif;color:#1c1c1c;"
    "background:#fff}\n"
    "h2{font-size:1rem}\n"
    ".answer{white-space:pre-wrap;overflow-wrap:anywhere}\n"
    ".answer span{border-radius:3px}\n"
    ".counts{color:#666;font-size:.85rem}\n"
    ".c0{background:#d5efdb}.c1{background:#d3e7f7}.c2{background:#fbeec2}.c3{background:#f3d9ee}"
    ".c4{background:#e2dcf7}\n"
    "@media(prefers-color-scheme:dark){body{background:#161616;color:#eee}.counts{color:#aaa}"
    ".c0{background:#1d4a2b}.c1{background:#1c4059}.c2{background:#57470f}.c3{background:#532548}"
    ".c4{background:#362a63}}\n";

}  // namespace

const char* accept_color(int64_t step) {
  return kTerminalColors[static_cast<size_t>(step % std::ssize(kTerminalColors))];
}

std::string accept_page(std::span<const AcceptedAnswer> answers, const std::string& method) {
  std::string html =
      "<!DOCTYPE html>\n<html>\n<head>\n<meta charset=\"utf-8\">\n<title>volley text</title>\n<style>\n" +
      std::string(kStyle) + "</style>\n</head>\n<body>\n<p class=\"counts\">" + escaped_markup(method) +
      "<br>Text of one colour was made by one forward.</p>\n";
  for (const AcceptedAnswer& answer : answers) html += section_of(answer);
  return html + "</body>\n</html>\n";
}

}  // namespace volley::apps
