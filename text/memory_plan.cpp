#include "text/memory_plan.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "core/io/zero_source.h"

namespace volley::text {
namespace {

// Steps behind which nothing is new: drafts are as long as they get, and outputs need no more memory than the
// cache has.
constexpr int64_t kPlannedSteps = 64;

// The same without values. Nothing that it writes ends an answer.
TextCheckpoint without_values(const TextCheckpoint& checkpoint) {
  return {.path = checkpoint.path,
          .name = checkpoint.name,
          .llama = {.config = checkpoint.llama.config,
                    .weights = std::make_unique<ZeroSource>(*checkpoint.llama.weights),
                    .gguf = nullptr},
          .tokenizer = checkpoint.tokenizer,
          .end_tokens = {},
          .chat_format = checkpoint.chat_format,
          .chat_fault = checkpoint.chat_fault};
}
HeadsCheckpoint without_values(const HeadsCheckpoint& heads) {
  return {.path = heads.path,
          .name = heads.name,
          .config = heads.config,
          .weights = std::make_unique<ZeroSource>(*heads.weights)};
}

// A batch of the prompts with the most tokens and the longest drafts. What may end their answers, or forbid
// what a model without values says, is left out.
TextRequest largest_batch(const TextCheckpoint& checkpoint, const TextRequest& request, int64_t batch) {
  TextRequest largest = request;
  if (std::ssize(largest.prompts) > batch) {
    std::vector<std::pair<int64_t, TextPrompt>> sized;  // tokens
    for (TextPrompt& prompt : largest.prompts) {
      const int64_t tokens = std::ssize(encode_prompt(checkpoint, request, prompt));
      sized.emplace_back(tokens, std::move(prompt));
    }
    std::ranges::stable_sort(sized, std::ranges::greater(), &std::pair<int64_t, TextPrompt>::first);
    largest.prompts.clear();
    for (int64_t i = 0; i < batch; ++i)
      largest.prompts.push_back(std::move(sized[static_cast<size_t>(i)].second));
  }
  largest.stops.clear();
  // Lengths that are measured to pay: forwards without values pay anything.
  plan_longest_drafts(largest.decoder);
  // Windows of which all tokens are kept: without values entropies are zero.
  if (decoder_model(largest.decoder) == DecoderModel::kSequentialDiffusion) {
    largest.decoder.options["confidence"] = "entropy";
    largest.decoder.options["threshold"] = "0";
  }
  return largest;
}

class StepLimit : public TextObserver {
 public:
  explicit StepLimit(std::stop_source& stop) : stop_(stop) {}
  void on_step(const StepEvent& event) override {
    if (event.step >= kPlannedSteps) stop_.request_stop();
  }

 private:
  std::stop_source& stop_;
};

void run_some_steps(TextRunner& runner, const TextRequest& request, const std::stop_token& told) {
  std::stop_source stop;
  const std::stop_callback passed_on(told, [&] { stop.request_stop(); });
  StepLimit limit(stop);
  runner.run(request, {.observer = &limit, .stop = stop.get_token()}, std::ssize(request.prompts));
}

}  // namespace

MemoryPlan plan_memory(const TextCheckpoints& checkpoints, const TextRequest& request,
                       const MemoryPlanOptions& options) {
  const auto backend = make_plan_backend(options.backend);
  const TextModel model(without_values(checkpoints.model), {.backend = backend, .storage = options.storage});
  std::optional<TextModel> draft;
  if (checkpoints.draft != nullptr) {
    draft.emplace(without_values(*checkpoints.draft),
                  TextModel::Options{.backend = backend, .storage = options.draft_storage});
  }
  std::optional<TextHeads> heads;
  if (checkpoints.heads != nullptr) heads.emplace(without_values(*checkpoints.heads), model);
  MemoryPlan plan{.weights = backend->allocated_bytes()};
  const TextModels models{
      .model = model, .draft = draft ? &*draft : nullptr, .heads = heads ? &*heads : nullptr};

  TextRequest first = largest_batch(model.checkpoint(), request, options.batch);
  plan.batch = std::ssize(first.prompts);
  const BatchBytes bytes = batch_bytes(models, first);
  plan.caches = bytes.cache;
  first.constraint.reset();
  first.check = Check::kNo;
  TextRunner runner(models);
  run_some_steps(runner, first, options.stop);
  if (heads) {  // without values all text repeats itself, and no guess is sure
    TextRequest guessing = first;
    guessing.decoder.options["copy"] = "0";
    guessing.decoder.options["confidence"] = "0";
    run_some_steps(runner, guessing, options.stop);
  }
  if (request.check == Check::kYes) {  // which runs while the runner's cache is there
    first.decoder = {.name = "sequential"};
    TextRunner checker({.model = model});
    run_some_steps(checker, first, options.stop);
  }
  plan.working = backend->peak_bytes() - plan.weights - plan.caches + bytes.constraint;
  return plan;
}

}  // namespace volley::text
