#include "apps/progress.h"

#include <algorithm>

namespace volley::apps {
namespace {

constexpr std::chrono::milliseconds kBetweenDrawings{100};
constexpr int64_t kBarWidth = 20;

std::string bar(int64_t done, int64_t total) {
  const int64_t full = total > 0 ? kBarWidth * done / total : 0;
  std::string text;
  for (int64_t i = 0; i < kBarWidth; ++i) text += i < full ? "━" : "·";
  return text;
}

}  // namespace

void Progress::on_step(const StepEvent& event, const std::string& label) {
  Item& item = items_[event.generation];
  item.tokens = event.done;
  ++item.steps;
  const auto now = std::chrono::steady_clock::now();
  if (!console_.shows_progress() || (now - drawn_ < kBetweenDrawings && drawn_ != decltype(drawn_){})) return;
  drawn_ = now;
  int64_t tokens = 0, steps = 0;
  for (const auto& [index, each] : items_) {
    tokens += each.tokens;
    steps = std::max(steps, each.steps);
  }
  const int64_t total = pictures_ * tokens_each_;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  console_.progress(bar(tokens, total) + " " + label + "  " + std::to_string(tokens) + "/" + std::to_string(total) +
                    " tokens  " + fixed(static_cast<double>(item.tokens) / static_cast<double>(item.steps), 1) +
                    " a forward  " + std::to_string(steps) + " steps  " + fixed(seconds, 1) + " s");
}

}  // namespace volley::apps
