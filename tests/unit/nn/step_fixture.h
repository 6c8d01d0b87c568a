#pragma once

// A small model on each backend, and sequences fed to it by hand.

#include <gtest/gtest.h>

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/decode/session.h"
#include "tests/support/devices.h"
#include "tests/support/toy_models.h"

namespace volley::test {

inline constexpr int64_t kStepVocab = 16;

class StepFixture : public testing::TestWithParam<std::string> {
 protected:
  std::shared_ptr<const Backend> backend_ = make_backend(GetParam(), 2);
  std::unique_ptr<StepModel> model_ =
      make_toy_llama(*backend_, 3, {.dim = 32, .layers = 2, .heads = 4, .kv_heads = 2});

  static std::vector<int32_t> random_tokens(uint64_t seed, int64_t count) {
    TestRandom random(seed);
    std::vector<int32_t> tokens(static_cast<size_t>(count));
    for (int32_t& token : tokens) token = static_cast<int32_t>(random.below(kStepVocab));
    return tokens;
  }

  // A sequence fed one token at a time; returns the logits behind the last.
  std::vector<float> feed(Session& session, SequenceId id, std::span<const int32_t> tokens) const {
    for (int32_t token : tokens) {
      SequenceStep step{.sequence = id,
                        .rows = {{.token = token, .position = model_->position(session.cache().length(id))}}};
      step.wanted.logits = {0};
      session.step({&step, 1});
      session.cache().commit_prefix(id, 1);
    }
    return session.logits_on_host(session.logits_row(0, 0));
  }

  static std::string error_of(auto&& action) {
    try {
      action();
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
};

}  // namespace volley::test
