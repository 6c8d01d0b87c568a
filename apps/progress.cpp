#include "apps/progress.h"

#include <algorithm>

#include "image/image_job.h"

namespace volley::apps {
namespace {

constexpr std::chrono::milliseconds kBetweenDrawings{100};
constexpr int64_t kBarWidth = 16;

std::string bar(int64_t done, int64_t total) {
  const int64_t full = total > 0 ? kBarWidth * done / total : 0;
  std::string text;
  for (int64_t i = 0; i < kBarWidth; ++i) text += i < full ? "━" : "·";
  return text;
}

}  // namespace

void Progress::on_step(const StepEvent& event) {
  const auto now = std::chrono::steady_clock::now();
  if (tokens_.empty()) start_ = now;
  tokens_[event.generation] = event.done;
  if (event.source == image::kGivenSource) {
    given_ += event.done;
  } else if (event.source != "prompt") {
    ++output_forwards_;
    // A batch's forward reports each output at most once.
    std::set<int64_t>& reported = in_forward_[event.worker];
    if (reported.empty() || !reported.insert(event.generation).second) {
      ++forwards_;
      reported = {event.generation};
    }
  }
  if (!console_.shows_progress() || now - drawn_ < kBetweenDrawings) return;
  drawn_ = now;
  draw();
}

void Progress::draw() {
  int64_t tokens = 0;
  for (const auto& [index, done] : tokens_) tokens += done;
  const int64_t total = work_.outputs * work_.tokens_each;
  const double seconds = std::chrono::duration<double>(drawn_ - start_).count();
  console_.progress(bar(tokens, total) + " " + work_.label + " " + std::to_string(tokens) + "/" +
                    std::to_string(total) + " tokens, " + plural(forwards_, "forward") + ", " +
                    fixed(static_cast<double>(tokens - given_) /
                              static_cast<double>(std::max<int64_t>(output_forwards_, 1)),
                          1) +
                    " a forward, " + fixed(seconds, 1) + " s");
}

}  // namespace volley::apps
