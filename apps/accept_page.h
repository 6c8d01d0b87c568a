#pragma once

#include <span>
#include <string>
#include <vector>

#include "text/text_job.h"

namespace volley::apps {

// An answer with the steps that made it.
struct AcceptedAnswer {
  std::string prompt;
  text::TextAnswer answer;
  int64_t forward_tokens = 0;  // text::forward_tokens
  std::vector<text::TextPiece> pieces;
};

// A page of its own, without scripts or anything to load: the answers, each run of text coloured by the step
// that made it. `method` says how they were made.
std::string accept_page(std::span<const AcceptedAnswer> answers, const std::string& method);

// Colours that take turns with the steps: codes of a terminal.
const char* accept_color(int64_t step);

}  // namespace volley::apps
