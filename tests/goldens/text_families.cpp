// text_llama, text_llama3, text_qwen2, text_qwen3: logits of the last 16 rows of `ids`; greedy continuation of its head.
#include <algorithm>

#include "core/base/error.h"
#include "core/decode/session.h"
#include "tests/goldens/golden_case.h"
#include "text/llama.h"

namespace volley::goldens {
namespace {

constexpr int64_t kPromptChunk = 256;

// Logits of the last `wanted` of the rows, run on the prompt path.
std::vector<float> last_logits(const Run& run, const StepModel& model, std::span<const int32_t> ids, int64_t wanted) {
  const auto count = static_cast<int64_t>(ids.size());
  Session session(model, run.backend, {.entries = count});
  const SequenceId sequence = session.cache().create();
  std::vector<float> logits;
  for (int64_t begin = 0; begin < count; begin += kPromptChunk) {
    SequenceStep step{.sequence = sequence, .phase = Phase::kPrompt};
    for (int64_t i = begin; i < std::min(count, begin + kPromptChunk); ++i) {
      if (i >= count - wanted) step.wanted.logits.push_back(static_cast<int32_t>(i - begin));
      step.rows.push_back({.token = ids[static_cast<size_t>(i)], .position = model.position(i)});
    }
    session.step({&step, 1});
    for (size_t w = 0; w < step.wanted.logits.size(); ++w) {
      const std::vector<float> row = session.logits_on_host(session.logits_row(0, static_cast<int64_t>(w)));
      logits.insert(logits.end(), row.begin(), row.end());
    }
    session.cache().commit_prefix(sequence, static_cast<int64_t>(step.rows.size()));
  }
  return logits;
}

}  // namespace

void check_text_llama(const Run& run) {
  const Case& golden = run.golden;
  const text::Llama model(text::parse_llama_config(golden.config(), golden.config_path()),
                          WeightLoader(run.weights, *run.backend, WeightType::kF32));
  const Shape ids_shape = golden.shape("ids", 2), greedy_shape = golden.shape("greedy", 2);
  const int64_t wanted = golden.shape("logits_last16", 3)[1];
  const std::vector<int32_t> ids = golden.ids("ids"), greedy = golden.ids("greedy");

  std::vector<float> logits;
  std::vector<int32_t> expected;
  std::vector<Generation> generations;
  for (int64_t b = 0; b < ids_shape[0]; ++b) {
    const auto row = std::span(ids).subspan(static_cast<size_t>(b * ids_shape[1]), static_cast<size_t>(ids_shape[1]));
    const std::vector<float> last = last_logits(run, model, row, wanted);
    logits.insert(logits.end(), last.begin(), last.end());
    // `greedy` starts with the prompt, which is the head of `ids`. Tokens that both share by chance change nothing.
    const auto made = std::span(greedy).subspan(static_cast<size_t>(b * greedy_shape[1]),
                                                static_cast<size_t>(greedy_shape[1]));
    const auto prompt = std::ranges::mismatch(made, row).in1 - made.begin();
    if (prompt == 0 || prompt == greedy_shape[1]) throw Error(golden.folder() + ": greedy does not continue ids");
    generations.push_back({.prompt = token_prompt(model, made.first(static_cast<size_t>(prompt))),
                           .chain = {.temperature = 0.0f},
                           .max_tokens = greedy_shape[1] - prompt});
    expected.insert(expected.end(), made.begin() + prompt, made.end());
  }
  run.check.close("logits_last16", logits);
  check_methods(run, {.model = model, .generations = generations, .name = "greedy", .expected = expected});
}

}  // namespace volley::goldens
