#include "text/selftest.h"

#include <algorithm>
#include <vector>

#include "core/base/error.h"
#include "core/decode/check.h"
#include "core/decode/decoder.h"

namespace volley::text {
namespace {

constexpr int64_t kTokens = 16;

// The first output of `count` equal generations but for their seeds.
std::vector<int32_t> decode(const TextModel& model, const DecoderSpec& spec, int64_t count,
                            const std::stop_token& stop) {
  const TextCheckpoint& checkpoint = model.checkpoint();
  std::vector<int32_t> words = checkpoint.tokenizer->encode("The sea is the sea is");
  if (words.empty()) words.push_back(0);
  const int64_t room = checkpoint.context() - std::ssize(words);
  if (room < 1)
    throw Error(checkpoint.path + ": a context of " + std::to_string(checkpoint.context()) + " is too short");
  std::vector<Generation> generations(static_cast<size_t>(count),
                                      {.prompt = token_prompt(model.step_model(), words),
                                       .max_tokens = std::min(kTokens, room),
                                       .mask_token = checkpoint.llama.config.mask_token,
                                       .mask_block = checkpoint.llama.config.mask_block});
  for (size_t i = 0; i < generations.size(); ++i) generations[i].seed = i;
  const auto decoder = make_decoder(spec);
  Session session(model.step_model(), model.backend(),
                  {.sequences = count, .entries = decoder->entries(generations.front())});
  return decoder->decode(session, generations, {.stop = stop}).front().tokens;
}

// A method of the diffusion model that goes through its caches.
DecoderSpec diffusion_of(ModelKind kind) {
  if (kind == ModelKind::kBlockDiffusion) return {.name = "block-diffusion", .options = {{"cache", "dual"}}};
  if (kind == ModelKind::kSequentialDiffusion)
    return {.name = "sequential-diffusion", .options = {{"threshold", "0.5"}}};
  return {.name = "diffusion", .options = {{"block_length", "8"}, {"steps", "8"}, {"cache", "dual"}}};
}

}  // namespace

SelftestReport run_selftest(const TextModel& model, const std::stop_token& stop) {
  const ModelKind kind = model.checkpoint().kind();
  const bool is_masked = is_diffusion(kind);
  const DecoderSpec diffusion = diffusion_of(kind);
  const std::vector<int32_t> tokens =
      decode(model, is_masked ? diffusion : DecoderSpec{.name = "sequential"}, 1, stop);
  const std::vector<int32_t> again =
      is_masked ? decode(model, diffusion, 2, stop) : decode(model, {.name = "lookup"}, 1, stop);
  SelftestReport report{.tokens = std::ssize(tokens), .token_hash = hash_tokens(tokens)};
  if (stop.stop_requested()) return report;
  const LlamaConfig& config = model.checkpoint().llama.config;
  const auto is_token = [&](int32_t token) {
    return token >= 0 && token < config.vocab_size && token != config.mask_token;
  };
  if (!std::ranges::all_of(tokens, is_token)) {
    report.fault = "a token is none of the vocabulary";
  } else if (tokens != again) {
    report.fault = is_masked ? "an answer's tokens depend on its company"
                             : "lookup does not give sequential decoding's tokens";
  }
  return report;
}

}  // namespace volley::text
