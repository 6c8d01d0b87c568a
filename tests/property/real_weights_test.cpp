// Same-tokens methods on published weights, which are not in the tree: the model that VOLLEY_TEST_TEXT_MODEL
// names (a GGUF file or a folder). Without it these tests are skipped. VOLLEY_TEST_TEXT_HEADS: draft heads of
// it, without which method heads is left out. VOLLEY_TEST_SEEDS: how many, 200 unless it says so.
#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <string>

#include "core/backend/cpu/cpu_backend.h"
#include "core/decode/verify_loop.h"
#include "tests/property/drafters.h"
#include "tests/property/methods.h"
#include "text/text_job.h"

namespace volley::test {
namespace {

constexpr int64_t kTokens = 24, kBatch = 8;

using Tokens = std::vector<std::vector<int32_t>>;

int64_t seeds() {
  const char* stated = std::getenv("VOLLEY_TEST_SEEDS");
  return stated == nullptr ? 200 : std::strtoll(stated, nullptr, 10);
}

class RealWeights : public testing::Test {
 protected:
  void SetUp() override {
    const char* path = std::getenv("VOLLEY_TEST_TEXT_MODEL");
    if (path == nullptr) GTEST_SKIP() << "VOLLEY_TEST_TEXT_MODEL names no model";
    backend_ = make_cpu_backend(2);
    text::TextCheckpoint checkpoint = text::open_text_checkpoint(path);
    const auto blocks = WeightStorage::keeping_blocks(WeightType::kF32);
    const WeightStorage storage = checkpoint.has_blocks() ? blocks : WeightStorage(WeightType::kF32);
    model_ =
        std::make_unique<text::TextModel>(std::move(checkpoint), text::TextModel::Options{backend_, storage});
    if (const char* heads = std::getenv("VOLLEY_TEST_TEXT_HEADS"))
      heads_ = std::make_unique<text::TextHeads>(text::open_heads(heads, model_->checkpoint()), *model_);
    // The same weights, rounded otherwise: a drafter that is mostly right.
    draft_ = std::make_unique<text::TextModel>(text::open_text_checkpoint(path),
                                               text::TextModel::Options{backend_, WeightType::kQ8_0});
  }

  // Eight questions that no other seeds ask.
  std::vector<Generation> generations(int64_t first_seed, float temperature) const {
    static constexpr const char* kThings[] = {"sea",   "moon", "bread", "river",  "clock", "forest", "music",
                                              "train", "gold", "salt",  "winter", "glass", "bees"};
    static constexpr const char* kTasks[] = {"Say in one sentence what ",  "Write a line of verse about ",
                                             "List three facts about ",    "Explain to a child ",
                                             "Write a JSON object about ", "Count from 1 to 20, then name "};
    std::vector<Generation> made;
    for (int64_t seed = first_seed; seed < first_seed + kBatch; ++seed) {
      const std::string prompt = kTasks[seed % std::ssize(kTasks)] + std::string("the ") +
                                 kThings[seed % std::ssize(kThings)] + " number " + std::to_string(seed);
      text::TextRequest request{.chat_format = text::choose_chat_format(model_->checkpoint(), "")};
      const text::TextPrompt asked = request.chat_format
                                         ? text::TextPrompt{.messages = {{.role = "user", .content = prompt}}}
                                         : text::TextPrompt{.text = prompt};
      made.push_back({.prompt = token_prompt(model_->step_model(),
                                             text::encode_prompt(model_->checkpoint(), request, asked)),
                      .chain = {.temperature = temperature, .top_k = 40, .top_p = 0.95f},
                      .seed = static_cast<uint64_t>(seed),
                      .max_tokens = kTokens,
                      .stop_tokens = model_->checkpoint().end_tokens});
    }
    return made;
  }

  Session session() const {
    return Session(model_->step_model(), backend_, {.sequences = kBatch, .entries = 512});
  }
  std::unique_ptr<Decoder> decoder_of(const std::string& spec) const {
    return make_decoder(
        parse_decoder_spec(spec),
        {.model = &draft_->step_model(), .heads = heads_ ? &heads_->heads() : nullptr, .backend = backend_});
  }

  std::shared_ptr<const Backend> backend_;
  std::unique_ptr<text::TextModel> model_, draft_;
  std::unique_ptr<text::TextHeads> heads_;
};

TEST_F(RealWeights, DraftsOfAnyQualityChangeNothing) {
  for (const float temperature : {0.0f, 0.8f}) {
    for (const double right : {0.0, 0.7, 1.0}) {
      int64_t accepted = 0, rejected = 0;
      for (int64_t seed = 0; seed < seeds(); seed += kBatch) {
        const std::vector<Generation> some = generations(seed, temperature);
        Session plain = session(), drafted = session();
        const Tokens truth = tokens_of(decoder_of("sequential")->decode(plain, some, {}));
        QualityProposer proposer({.right = right,
                                  .length = 1 + seed / kBatch % 6,
                                  .siblings = 1 + seed / kBatch % 3,
                                  .seed = static_cast<uint64_t>(seed)},
                                 truth);
        ASSERT_EQ(tokens_of(VerifyLoop{.proposer = proposer}.run(drafted, some, {})), truth)
            << "seed " << seed << ", right " << right;
        accepted += proposer.accepted();
        rejected += proposer.rejected();
      }
      if (right < 1.0 || seeds() > kBatch) {  // siblings, from the second batch on
        EXPECT_GT(rejected, 0);
      }
      if (right > 0.0) {
        EXPECT_GT(accepted, 0);
      }
      std::printf("temperature %.1f, right %.1f: %lld accepted, %lld rejected\n",
                  static_cast<double>(temperature), right, static_cast<long long>(accepted),
                  static_cast<long long>(rejected));
    }
  }
}

TEST_F(RealWeights, RegisteredMethodsEqualSequential) {
  std::vector<std::string> decoders = same_tokens_methods();
  if (!heads_) std::erase(decoders, "heads");
  decoders.emplace_back("lookup:length=adaptive");
  decoders.emplace_back("draft:length=adaptive");
  if (heads_) decoders.emplace_back("heads:length=adaptive");
  for (const float temperature : {0.0f, 0.8f}) {
    std::map<std::string, DraftCounter> counters;
    for (int64_t seed = 0; seed < seeds(); seed += kBatch) {
      const std::vector<Generation> some = generations(seed, temperature);
      Session plain = session();
      const Tokens truth = tokens_of(decoder_of("sequential")->decode(plain, some, {}));
      for (const std::string& decoder : decoders) {
        Session drafted = session();
        DecodeControl control{.observer = &counters[decoder]};
        // By the true clock the model, drafting for itself, would not be let read a prompt.
        if (decoder.find("adaptive") != std::string::npos)
          control.clock = OddClock(static_cast<uint64_t>(seed / kBatch));
        const auto outputs = decoder_of(decoder)->decode(drafted, some, control);
        ASSERT_EQ(tokens_of(outputs), truth) << decoder << ", seeds from " << seed;
      }
    }
    for (const auto& [decoder, counter] : counters) {
      if (decoder != "sequential") {
        EXPECT_GT(counter.accepted, 0) << decoder;
        // Lengths that adapt leave a dear drafter alone, and may try nothing that is wrong.
        if (decoder.find("adaptive") == std::string::npos) {
          EXPECT_GT(counter.proposed, counter.accepted) << decoder;
        }
      }
      std::printf("temperature %.1f, %s: %lld of %lld drafted tokens right\n",
                  static_cast<double>(temperature), decoder.c_str(), static_cast<long long>(counter.accepted),
                  static_cast<long long>(counter.proposed));
    }
  }
}

}  // namespace
}  // namespace volley::test
