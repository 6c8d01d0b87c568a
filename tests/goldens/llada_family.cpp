// llada: logits of `probe_ids`; tokens and forwards of Fast-dLLM's three functions, greedy. A run is named
// FUNCTION.stepsN.blockN.thrX, where a threshold, if there is one, leaves the steps without effect.
#include <string_view>

#include "core/base/error.h"
#include "core/decode/decoder.h"
#include "core/decode/session.h"
#include "tests/goldens/golden_case.h"
#include "text/llama.h"

namespace volley::goldens {
namespace {

// The method that makes the run `name`. Throws Error for names of another form.
DecoderSpec method_of(const std::string& name, const std::string& folder) {
  const auto fail = [&] { return Error(folder + ": " + name + ": not the name of a run"); };
  const auto between = [&](const char* from, const char* to) {
    const size_t begin = name.find(from);
    if (begin == std::string::npos) throw fail();
    const size_t start = begin + std::string_view(from).size();
    return name.substr(start, *to == '\0' ? std::string::npos : name.find(to, start) - start);
  };
  const std::string function = name.substr(0, name.find('.'));
  DecoderSpec spec{.name = "diffusion",
                   .options = {{"block_length", between(".block", ".thr")}, {"second_forward", "always"}}};
  const std::string threshold = between(".thr", "");
  if (threshold == "None") {
    spec.options["steps"] = between(".steps", ".block");
  } else {
    spec.options["threshold"] = threshold;
  }
  if (function == "generate_with_prefix_cache") {
    spec.options["cache"] = "prefix";
  } else if (function == "generate_with_dual_cache") {
    spec.options["cache"] = "dual";
  } else if (function != "generate") {
    throw fail();
  }
  return spec;
}

}  // namespace

void check_llada(const Run& run) {
  const Case& golden = run.golden;
  const text::LlamaConfig config = text::parse_llama_config(golden.config(), golden.config_path());
  const text::Llama model(config, WeightLoader(run.weights, *run.backend, WeightType::kF32));
  run.check.close("probe_logits", whole_logits(run, model, "probe_ids"));

  const Shape prompt_shape = golden.shape("prompt", 2);
  const std::vector<int32_t> prompts = golden.ids("prompt");
  for (const std::string& name : golden.names_before(".nfe")) {
    const auto decoder = make_decoder(method_of(name, golden.folder()));
    const Shape shape = golden.shape(name + ".tokens", 2);
    if (prompt_shape[0] != 1 || shape[0] != 1 || shape[1] <= prompt_shape[1]) {
      throw Error(golden.folder() + ": " + name + ": expected one prompt and one longer output");
    }
    const Generation generation{.prompt = token_prompt(model, prompts),
                                .chain = {.temperature = 0.0f},
                                .max_tokens = shape[1] - prompt_shape[1],
                                .mask_token = config.mask_token};
    Session session(model, run.backend, {.entries = decoder->entries(generation)});
    const GenerationOutput output = decoder->decode(session, {&generation, 1}, {})[0];
    std::vector<int32_t> whole = prompts;
    whole.insert(whole.end(), output.tokens.begin(), output.tokens.end());
    run.check.equal(name + ".tokens", whole);
    const auto forwards = static_cast<int32_t>(output.forwards);
    run.check.equal(name + ".nfe", {&forwards, 1});
  }
}

}  // namespace volley::goldens
