#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "core/decode/decoder.h"
#include "core/decode/lane.h"
#include "tests/support/devices.h"
#include "tests/support/toy_models.h"

namespace volley::test {

inline constexpr int32_t kMask = 63;

inline std::vector<int32_t> prompt_of(uint64_t seed, int64_t length) {
  std::vector<int32_t> prompt;
  for (int64_t i = 0; i < length; ++i)
    prompt.push_back(static_cast<int32_t>((7 * seed + 3 * static_cast<uint64_t>(i * i + i)) % 61));
  return prompt;
}

// What a row says: the likeliest token, the likeliest that is not the mask, the former's probability, and the
// entropy.
struct Guess {
  int32_t token = 0, other = 0;
  float probability = 0.0f, entropy = 0.0f;
};

// A toy model that fills hidden places of blocks or windows of `block`.
class HiddenModels : public testing::TestWithParam<std::string> {
 protected:
  explicit HiddenModels(text::ModelKind kind, int64_t block) : block_(block) {
    model_ = make_toy_llama(
        *backend_, 17,
        {.vocab = 64, .spread = 0.55f, .mask_token = kMask, .kind = kind, .mask_block = block});
  }

  Generation generation(uint64_t seed, int64_t prompt, int64_t length, float temperature = 0.0f) const {
    return {.prompt = token_prompt(*model_, prompt_of(seed, prompt)),
            .chain = {.temperature = temperature},
            .seed = seed,
            .max_tokens = length,
            .mask_token = kMask,
            .mask_block = block_};
  }

  std::vector<GenerationOutput> run(const std::string& decoder, std::span<const Generation> generations,
                                    Observer* observer = nullptr) const {
    const auto method = make_decoder(parse_decoder_spec(decoder));
    Session::Options room{.sequences = std::ssize(generations)};
    for (const Generation& one : generations) room.entries = std::max(room.entries, method->entries(one));
    Session session(*model_, backend_, room);
    return method->decode(session, generations, {.observer = observer});
  }

  // The last `wanted` rows of a step on an empty cache.
  std::vector<Guess> guesses(const std::vector<StepRow>& rows, const Visibility& visibility,
                             size_t wanted) const {
    Session session(*model_, backend_, {.entries = std::ssize(rows)});
    SequenceStep step{.sequence = session.cache().create(), .rows = rows, .visibility = visibility};
    std::vector<SampleRow> samples;
    for (size_t i = rows.size() - wanted; i < rows.size(); ++i)
      step.wanted.logits.push_back(static_cast<int32_t>(i));
    session.step({&step, 1});
    for (size_t i = 0; i < wanted; ++i) {
      samples.push_back(make_sample_row({.temperature = 0.0f}, {},
                                        {.conditional = session.logits_row(0, static_cast<int64_t>(i))}));
    }
    const Samples made = session.sample(samples, {}, {.certainty = true, .top = 2});
    std::vector<Guess> guesses;
    for (size_t i = 0; i < wanted; ++i)
      guesses.push_back({made.tokens[i], made.top_tokens[2 * i + (made.tokens[i] == kMask ? 1 : 0)],
                         made.probability[i], made.entropy[i]});
    return guesses;
  }

  std::shared_ptr<const Backend> backend_ = make_backend(GetParam(), 2);
  std::unique_ptr<StepModel> model_;
  int64_t block_ = 0;
};

}  // namespace volley::test
