// The repetitions of volley bench text: load, prefill, and answers by each method.
#include <algorithm>
#include <chrono>
#include <optional>

#include "apps/bench.h"
#include "apps/text_plan.h"
#include "core/base/error.h"
#include "text/text_job.h"

namespace volley::apps {
namespace {

using Clock = std::chrono::steady_clock;

// Rarely enough to take no time of what is measured.
constexpr std::chrono::milliseconds kBetweenLooks{10};

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double mebibytes(int64_t bytes) {
  return static_cast<double>(bytes) / (1 << 20);
}

class FirstStep : public text::TextObserver {
 public:
  void on_step(const StepEvent& /*event*/) override {
    if (!seconds_) seconds_ = seconds_since(start_);
  }
  double seconds() const { return seconds_.value_or(0.0); }

 private:
  Clock::time_point start_ = Clock::now();
  std::optional<double> seconds_;
};

// One repetition, measurement by measurement.
class Repetition {
 public:
  Repetition(const BenchFlags& flags, const BenchPlan& plan, Program& program, std::string label)
      : flags_(flags), plan_(plan), program_(program), label_(std::move(label)) {}

  // False if it was stopped before its end.
  bool run(MemoryWatch& memory) {
    memory.take_peak();
    const auto backend = backend_for(flags_.shared);
    load(backend);
    const text::TextModels models{
        .model = *model_, .draft = draft_ ? &*draft_ : nullptr, .heads = heads_ ? &*heads_ : nullptr};
    if (!is_stopped() && !plan_.prefill.prompts.empty()) prefill(models);
    for (size_t i = 0; i < plan_.methods.size() && !is_stopped(); ++i) answer(models, i);
    if (is_stopped()) return false;
    add({.name = "peak memory", .unit = "MiB"}, mebibytes(memory.take_peak()));
    add({.name = "peak memory: of the device", .unit = "MiB"}, mebibytes(backend->peak_bytes()));
    return true;
  }

  // What was measured to its end: rows of one sample each.
  const std::vector<BenchRow>& rows() const { return rows_; }

 private:
  bool is_stopped() const { return program_.stop.stop_requested(); }
  void tell(const std::string& what) { program_.console.progress(label_ + ": " + what); }

  void add(BenchRow row, double value) {
    row.samples = {value};
    rows_.push_back(std::move(row));
  }

  void load(const std::shared_ptr<const Backend>& backend) {
    tell("load");
    const auto open = [&](const std::string& path, std::optional<text::TextModel>& model) {
      const Clock::time_point start = Clock::now();
      text::TextCheckpoint checkpoint = text::open_text_checkpoint(path);
      const WeightStorage storage = storage_of(flags_.shared.dtype, checkpoint, *backend);
      model.emplace(std::move(checkpoint), text::TextModel::Options{.backend = backend, .storage = storage});
      return seconds_since(start);
    };
    add({.name = "load", .unit = "s"}, open(plan_.model_path, model_));
    if (!plan_.draft_path.empty())
      add({.name = "load of the draft model", .unit = "s"}, open(plan_.draft_path, draft_));
    if (plan_.heads_path.empty()) return;
    const Clock::time_point start = Clock::now();
    heads_.emplace(text::open_heads(plan_.heads_path, model_->checkpoint()), *model_);
    add({.name = "load of the heads", .unit = "s"}, seconds_since(start));
  }

  void prefill(const text::TextModels& models) {
    tell("prefill");
    FirstStep first;
    const text::TextResult result =
        run_text(models, plan_.prefill, {.observer = &first, .stop = program_.stop}, 1);
    if (result.interrupted) return;
    const Statistics& statistics = result.statistics;
    add({.name = "prefill", .unit = "prompt tokens/s", .better = Better::kHigher},
        static_cast<double>(statistics.prompt_rows) / statistics.prompt_seconds);
    add({.name = "first token", .unit = "s"}, first.seconds());
  }

  void answer(const text::TextModels& models, size_t index) {
    const BenchMethod& method = plan_.methods[index];
    tell(method.name);
    // One at a time, as for one person.
    const text::TextResult result = run_text(models, method.request, {.stop = program_.stop}, 1);
    if (result.interrupted) return;
    if (result.forward_tokens() <= 0 || result.forwards() <= 0) {
      throw Error(method.name +
                  ": the answers end with their first tokens, which the prompts' forwards give: "
                  "nothing to measure");
    }
    const double rate = static_cast<double>(result.forward_tokens()) / result.answer_seconds();
    rates_.resize(plan_.methods.size());
    hashes_.resize(plan_.methods.size());
    rates_[index] = rate;
    for (const text::TextAnswer& made : result.answers) hashes_[index] += made.token_hash;
    const std::string about = decoder_text(method.request.decoder);
    add({.name = method.name, .unit = "tokens/s", .better = Better::kHigher, .method = about}, rate);
    if (method.request.decoder.name == "sequential") return;
    const auto ratio = [&](int64_t part) {
      return static_cast<double>(part) / static_cast<double>(result.forwards());
    };
    add({.name = method.name + ": tokens a forward",
         .unit = "tokens/forward",
         .better = Better::kHigher,
         .method = about},
        ratio(result.forward_tokens()));
    add({.name = method.name + ": rows a forward", .unit = "rows/forward", .method = about},
        ratio(result.rows()));
    if (method.baseline < 0) return;
    const auto baseline = static_cast<size_t>(method.baseline);
    if (decoder_class(method.request.decoder) == DecoderClass::kSameTokens &&
        hashes_[index] != hashes_[baseline]) {
      throw Error(method.name + ": " + about + " did not give sequential decoding's tokens");
    }
    add({.name = method.name + ": over sequential", .unit = "x", .better = Better::kHigher, .method = about},
        rate / rates_[baseline]);
  }

  const BenchFlags& flags_;
  const BenchPlan& plan_;
  Program& program_;
  std::string label_;
  std::optional<text::TextModel> model_;
  std::optional<text::TextModel> draft_;
  std::optional<text::TextHeads> heads_;
  std::vector<double> rates_;        // of the methods
  std::vector<std::string> hashes_;  // of their answers' tokens
  std::vector<BenchRow> rows_;
};

void append(const std::vector<BenchRow>& samples, std::vector<BenchRow>& rows) {
  for (const BenchRow& sample : samples) {
    const auto row = std::ranges::find(rows, sample.name, &BenchRow::name);
    if (row == rows.end()) {
      rows.push_back(sample);
    } else {
      row->samples.push_back(sample.samples.front());
    }
  }
}

}  // namespace

BenchResult run_bench(const BenchFlags& flags, const BenchPlan& plan, Program& program) {
  BenchResult result = plan.result;
  result.load_before = load_average();
  MemoryWatch memory(kBetweenLooks);
  for (int64_t i = 0; i < flags.warmup + flags.repeat && !result.interrupted; ++i) {
    const bool is_warmup = i < flags.warmup;
    Repetition repetition(
        flags, plan, program,
        is_warmup
            ? "warm-up " + std::to_string(i + 1) + " of " + std::to_string(flags.warmup)
            : "repetition " + std::to_string(i + 1 - flags.warmup) + " of " + std::to_string(flags.repeat));
    result.interrupted = !repetition.run(memory);
    if (!is_warmup) append(repetition.rows(), result.rows);
  }
  program.console.progress({});
  result.load_after = load_average();
  return result;
}

}  // namespace volley::apps
