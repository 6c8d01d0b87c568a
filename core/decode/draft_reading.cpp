#include "core/decode/draft_reading.h"

#include <algorithm>

namespace volley {
namespace {

constexpr int64_t kRehearsals = 2;
// How often a token of a good draft is right, those before it being right. Small models of a family reach 0.7
// to 0.85.
constexpr double kHope = 0.9;

}  // namespace

void DraftReading::observe_prompt(int64_t rows, double seconds) {
  // Beyond a day no clock is to be believed.
  if (rows > 0 && seconds > 0.0 && seconds < 86400.0) prompt_row_ = seconds / static_cast<double>(rows);
}

bool DraftReading::wants_rehearsal(const Outlook& outlook) const {
  return rehearsals_ == 0 || (rehearsals_ < kRehearsals && !pays(outlook));
}

bool DraftReading::pays(const Outlook& outlook) const {
  if (!(outlook.draft_token > 0.0) || !(outlook.plain_step > 0.0)) return false;
  const double price = outlook.draft_token / outlook.plain_step;  // of a drafted token, in steps
  double best = 1.0, tokens = 1.0, gain = 1.0;                    // tokens a plain step's time, of a step
  for (int64_t length = 1; length <= outlook.longest; ++length) {
    gain *= kHope;
    tokens += gain;
    best = std::max(best, tokens / (1.0 + static_cast<double>(length) * price));
  }
  const double saved = static_cast<double>(outlook.tokens) * outlook.plain_step * (1.0 - 1.0 / best);
  return saved > static_cast<double>(outlook.unread) * prompt_row_ * price;
}

}  // namespace volley
