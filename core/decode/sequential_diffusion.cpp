// Sequential diffusion: behind a causal prefix stands a window, the last token again and hidden places, whose
// rows see the prefix before that token and each other. Row i predicts the i-th token to come; the longest
// run of them from the first on that are surer than the threshold is kept, one at least. The next step runs
// kept tokens as causal rows, which are committed, and the next window behind them; windows are dropped.
// Ref: Liu et al., "Sequential Diffusion Language Models"; OpenGVLab/SDLM, `SDLM_generate` with use_cache.
// There the last token runs once more before the window, hidden from it; here its own row waits for the next
// step, which gives the same entries. Differs in that answers end at max_tokens, and that certainty is of the
// model's own distribution, whatever the temperature. Under a constraint the guesses of a window are chosen
// together (constrained_guess.h), and a run of them is kept by the same rule.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "core/base/error.h"
#include "core/decode/canvas_loop.h"
#include "core/decode/constrained_guess.h"
#include "core/decode/hidden_guesses.h"
#include "core/decode/lane.h"
#include "core/decode/methods.h"

namespace volley {
namespace {

struct Settings {
  Certainty certainty = Certainty::kProbability;
  double threshold = 0.0;
};

// Certainty in 0 .. 1: a probability, or 1 - entropy / log(vocabulary).
std::vector<float> confidences(std::vector<float> values, Certainty certainty, int64_t vocab) {
  if (certainty != Certainty::kEntropy) return values;
  for (float& value : values) value = 1.0f - value / std::log(static_cast<float>(vocab));
  return values;
}

// One output in the making.
class WindowCanvas {
 public:
  // `constrained` is null without a constraint.
  WindowCanvas(Session& session, const Generation& generation, const Settings& settings,
               std::shared_ptr<ConstrainedBlock> constrained)
      : session_(&session),
        settings_(&settings),
        lane_(session, generation),
        output_(generation, std::move(constrained)) {}

  bool is_finished() const { return output_.is_finished(); }
  GenerationOutput take_output() { return output_.take(); }
  Lane& lane() { return lane_; }

  void add_to(std::vector<SequenceStep>& steps) {
    const Generation& generation = lane_.generation();
    const int64_t prompt = std::ssize(generation.prompt.rows);
    const int64_t last = prompt + std::ssize(output_.tokens()) - 1;  // index of the last token
    const int64_t window = std::min(generation.mask_block, session_->model().traits().max_position - last);
    SequenceStep step;
    const int64_t causal = std::max<int64_t>(0, waiting_);
    for (int64_t place = last - causal; place < last; ++place) step.rows.push_back(row_of(place));
    step.rows.push_back(row_of(last));
    places_.clear();
    wanted_.clear();
    for (int64_t i = 0; i < window; ++i) {
      if (i > 0) {
        step.rows.push_back(
            {.token = generation.mask_token, .position = session_->model().position(last + i)});
      }
      step.wanted.logits.push_back(static_cast<int32_t>(causal + i));
      places_.push_back(static_cast<int32_t>(std::ssize(output_.tokens()) + i));
      wanted_.push_back(static_cast<int32_t>(i));
    }
    step.visibility = visibility(causal, std::ssize(step.rows));
    // The prompt was committed whole: its last entry is hidden from the window that begins with it.
    if (waiting_ < 0) step.visibility.context = static_cast<int32_t>(last);
    output_.count_forward(std::ssize(step.rows));
    lane_.add_to(steps, std::move(step));
  }

  void keep_entries() {
    std::vector<int32_t> rows(static_cast<size_t>(std::max<int64_t>(0, waiting_)));
    std::iota(rows.begin(), rows.end(), 0);
    lane_.commit(rows);
    waiting_ = std::min<int64_t>(0, waiting_);
  }

  void add_sample_rows(std::vector<SampleRow>& rows) {
    guesses_.ask(lane_,
                 {.places = places_, .wanted = wanted_, .done = std::ssize(output_.tokens()), .step = step_},
                 rows);
  }

  void take(const Samples& samples, int64_t index, const DecodeControl& control) {
    const Generation& generation = lane_.generation();
    const auto left = static_cast<size_t>(generation.max_tokens - std::ssize(output_.tokens()));
    const std::vector<int32_t> hidden(std::min(places_.size(), left), generation.mask_token);
    auto [guesses, certainty] = output_.guess(guesses_, samples, hidden, settings_->certainty);
    const std::vector<float> sure =
        confidences(std::move(certainty), settings_->certainty, session_->model().traits().vocab_size);
    auto count = static_cast<size_t>(confident_prefix(sure, settings_->threshold));
    // The mask is no token: a run ends before it, and is never empty.
    const int32_t mask = generation.mask_token;
    if (guesses[0] == mask) guesses[0] = guesses_.likeliest_other(*session_, 0);
    count = static_cast<size_t>(
        std::ranges::find(guesses.begin(), guesses.begin() + static_cast<std::ptrdiff_t>(count), mask) -
        guesses.begin());
    std::vector<int32_t> tokens, positions;
    for (size_t i = 0; i < count && !output_.is_finished(); ++i) {
      positions.push_back(places_[i]);
      tokens.push_back(guesses[i]);
      output_.add(guesses[i]);
    }
    waiting_ += std::ssize(tokens);
    session_->statistics().tokens += std::ssize(tokens);
    ++session_->statistics().accepted[std::ssize(tokens)];
    if (control.observer != nullptr) {
      control.observer->on_step({.generation = index,
                                 .step = step_,
                                 .positions = positions,
                                 .tokens = tokens,
                                 .proposed = std::ssize(places_),
                                 .accepted = std::ssize(tokens),
                                 .source = "window",
                                 .done = std::ssize(output_.tokens()),
                                 .total = generation.max_tokens});
    }
    ++step_;
  }

 private:
  StepRow row_of(int64_t place) const {
    const std::vector<StepRow>& prompt = lane_.generation().prompt.rows;
    if (place < std::ssize(prompt)) return prompt[static_cast<size_t>(place)];
    return {.token = output_.tokens()[static_cast<size_t>(place - std::ssize(prompt))],
            .position = session_->model().position(place)};
  }

  // `causal` rows, then a window that sees them and itself.
  static Visibility visibility(int64_t causal, int64_t rows) {
    Visibility visibility{.kind = MaskKind::kBits};
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < rows; ++j) visibility.bits.push_back(j <= i || i >= causal ? 1 : 0);
    }
    return visibility;
  }

  Session* session_;
  const Settings* settings_;
  Lane lane_;
  FilledOutput output_;
  int64_t waiting_ = -1;  // tokens before the last that have no entries yet; negative: the last has one
  int64_t step_ = 0;
  // Of the forward in flight.
  std::vector<int32_t> places_;  // of the output, that the window predicts
  std::vector<int32_t> wanted_;
  HiddenGuesses guesses_;
};

class SequentialDiffusion : public Decoder {
 public:
  explicit SequentialDiffusion(const OptionReader& options)
      : settings_{.certainty = options.choice("confidence", {"probability", "entropy"}) == "entropy"
                                   ? Certainty::kEntropy
                                   : Certainty::kProbability,
                  .threshold = options.number("threshold", 0.0, 1.0)} {}

  std::vector<GenerationOutput> decode(Session& session, std::span<const Generation> generations,
                                       const DecodeControl& control) const override {
    constexpr GrowingMethod kMethod{
        .decoder = "sequential-diffusion", .unit = "windows", .mask = MaskKind::kBits};
    kMethod.check(session.model().traits(), generations);
    std::vector<WindowCanvas> all;
    std::vector<Prompt> prompts;
    const auto constrained =
        constrained_blocks(generations, session.model().traits().vocab_size, kMethod.decoder);
    for (size_t i = 0; i < generations.size(); ++i)
      all.emplace_back(session, generations[i], settings_, constrained[i]);
    for (WindowCanvas& canvas : all) canvas.lane().add_prompts(prompts);
    session.prefill(prompts, WantLogits::kNo, {}, control.stop);
    return run_canvases(session, all, HiddenGuesses::wants(generations, settings_.certainty), control);
  }

  // The window stands behind the last committed token, with at most one window's tokens waiting before it.
  int64_t entries(const Generation& generation) const override {
    return prompt_entries(generation) + generation.max_tokens + std::max<int64_t>(0, generation.mask_block);
  }

 private:
  Settings settings_;
};

}  // namespace

std::unique_ptr<Decoder> make_sequential_diffusion(const OptionReader& options) {
  return std::make_unique<SequentialDiffusion>(options);
}

}  // namespace volley
