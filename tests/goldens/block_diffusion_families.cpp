// fast_dllm_v2 and sdlm, written by tools/block_diffusion_cases.py: logits of `probe_ids`; of each run its
// tokens and forwards, greedy, and of some, for each forward that filled places, the logits that predict the
// first of them. Runs are named PROMPT.thrX.cache_WORD.smallN and PROMPT.by_WORD.thrX.
#include <algorithm>
#include <functional>
#include <string_view>
#include <utility>

#include "core/base/error.h"
#include "core/decode/decoder.h"
#include "core/decode/session.h"
#include "tests/goldens/golden_case.h"
#include "text/llama.h"

namespace volley::goldens {
namespace {

// Keeps of each step the logits that predict the first place it filled. `wanted` says which wanted row of the
// step that was, of the place.
class LogitsRecorder : public Observer {
 public:
  LogitsRecorder(const Session& session, std::function<int64_t(int64_t place)> wanted)
      : session_(session), wanted_(std::move(wanted)) {}

  void on_step(const StepEvent& event) override {
    if (event.source == "next row" || event.positions.empty()) return;
    const int64_t wanted = wanted_(event.positions.front());
    const std::vector<float> row = session_.logits_on_host(session_.logits_row(0, wanted));
    logits.insert(logits.end(), row.begin(), row.end());
  }

  std::vector<float> logits;

 private:
  const Session& session_;
  std::function<int64_t(int64_t)> wanted_;
};

// A run of the case by `spec`, which must give all that the case holds of it.
struct DiffusionRun {
  std::string name;
  std::vector<int32_t> prompt;
  DecoderSpec spec;
  std::function<int64_t(int64_t place)> wanted;
};

void check_run(const Run& run, const text::Llama& model, const text::LlamaConfig& config,
               const DiffusionRun& diffusion) {
  const Case& golden = run.golden;
  const std::string tokens = diffusion.name + ".tokens", logits = diffusion.name + ".logits";
  const auto stop = golden.config().at("eos_token_id").get<int32_t>();
  const std::vector<int32_t> expected = golden.ids(tokens);
  const bool is_ended = std::ranges::count(expected, stop) > 0;
  const auto decoder = make_decoder(diffusion.spec);
  const Generation generation{.prompt = token_prompt(model, diffusion.prompt),
                              .chain = {.temperature = 0.0f},
                              .max_tokens = is_ended ? 128 : std::ssize(expected),
                              .stop_tokens = {stop},
                              .mask_token = config.mask_token,
                              .mask_block = config.mask_block};
  Session session(model, run.backend, {.entries = decoder->entries(generation)});
  LogitsRecorder recorder(session, diffusion.wanted);
  const GenerationOutput output = decoder->decode(session, {&generation, 1}, {.observer = &recorder})[0];
  run.check.equal(tokens, output.tokens);
  const auto forwards = static_cast<int32_t>(output.forwards);
  run.check.equal(diffusion.name + ".nfe", {&forwards, 1});
  if (golden.has(logits)) run.check.close(logits, recorder.logits);
}

// Logits of the rows of `probe_ids`, run as one step.
std::vector<float> probe_logits(const Run& run, const text::Llama& model, const Visibility& visibility) {
  const std::vector<int32_t> ids = run.golden.ids("probe_ids");
  Session session(model, run.backend, {.entries = std::ssize(ids)});
  SequenceStep step{.sequence = session.cache().create(), .visibility = visibility};
  for (int64_t i = 0; i < std::ssize(ids); ++i) {
    step.rows.push_back({.token = ids[static_cast<size_t>(i)], .position = model.position(i)});
    step.wanted.logits.push_back(static_cast<int32_t>(i));
  }
  session.step({&step, 1});
  std::vector<float> logits;
  for (int64_t i = 0; i < std::ssize(ids); ++i) {
    const std::vector<float> row = session.logits_on_host(session.logits_row(0, i));
    logits.insert(logits.end(), row.begin(), row.end());
  }
  return logits;
}

// The text between `from` and `to` in `name`; empty `to`: its end. Throws Error.
std::string between(const Run& run, const std::string& name, std::string_view from, std::string_view to) {
  const size_t at = name.find(from);
  if (at == std::string::npos) throw Error(run.golden.folder() + ": " + name + ": not the name of a run");
  const size_t begin = at + from.size();
  return name.substr(begin, to.empty() ? std::string::npos : name.find(to, begin) - begin);
}

}  // namespace

void check_fast_dllm_v2(const Run& run) {
  const text::LlamaConfig config = text::parse_llama_config(run.golden.config(), run.golden.config_path());
  const text::Llama model(config, WeightLoader(run.weights, *run.backend, WeightType::kF32));
  run.check.close("probe_logits",
                  probe_logits(run, model, {.kind = MaskKind::kBlockCausal, .block = config.mask_block}));
  for (const std::string& name : run.golden.names_before(".nfe")) {
    const std::vector<int32_t> prompt = run.golden.ids(name.substr(0, name.find('.')) + ".prompt");
    const std::string sub_block = between(run, name, ".small", "");
    // A step wants a row for each place of its sub-block.
    const auto wanted = [&prompt, small = std::stoll(sub_block)](int64_t position) {
      return (std::ssize(prompt) + position) % small;
    };
    check_run(run, model, config,
              {.name = name,
               .prompt = prompt,
               .spec = {.name = "block-diffusion",
                        .options = {{"threshold", between(run, name, ".thr", ".cache_")},
                                    {"cache", between(run, name, ".cache_", ".small")},
                                    {"sub_block", sub_block}}},
               .wanted = wanted});
  }
}

void check_sdlm(const Run& run) {
  const text::LlamaConfig config = text::parse_llama_config(run.golden.config(), run.golden.config_path());
  const text::Llama model(config, WeightLoader(run.weights, *run.backend, WeightType::kF32));
  run.check.close("probe_logits", probe_logits(run, model, {.kind = MaskKind::kCausal}));
  for (const std::string& name : run.golden.names_before(".nfe")) {
    check_run(run, model, config,
              {.name = name,
               .prompt = run.golden.ids(name.substr(0, name.find('.')) + ".prompt"),
               .spec = {.name = "sequential-diffusion",
                        .options = {{"threshold", between(run, name, ".thr", "")},
                                    {"confidence", between(run, name, ".by_", ".thr")}}},
               .wanted = [](int64_t) { return int64_t{0}; }});
  }
}

}  // namespace volley::goldens
