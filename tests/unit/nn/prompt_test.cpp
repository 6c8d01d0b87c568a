// Prompts through a session: in batches, in chunks, kept for later ones, stopped and cropped.
#include <algorithm>
#include <array>
#include <numeric>
#include <stop_token>

#include "core/base/error.h"
#include "core/decode/decoder.h"
#include "core/decode/generation.h"
#include "tests/unit/nn/step_fixture.h"

namespace volley::test {
namespace {

constexpr int64_t kVocab = kStepVocab;

class Prompts : public StepFixture {};

TEST_P(Prompts, PromptsInOneBatchEqualPromptsAlone) {
  std::vector<std::vector<int32_t>> texts;
  for (const int64_t length : {5, 256, 257, 600, 511})
    texts.push_back(random_tokens(20 + static_cast<uint64_t>(length), length));
  Session session(*model_, backend_, {.sequences = 10, .entries = 700});
  std::vector<Prompt> prompts;
  for (const auto& text : texts) {
    prompts.push_back({.sequence = session.cache().create(), .rows = token_prompt(*model_, text).rows});
  }
  session.prefill(prompts);
  std::vector<std::vector<float>> together;
  for (size_t i = 0; i < texts.size(); ++i)
    together.push_back(session.logits_on_host(static_cast<int64_t>(i)));
  for (size_t i = 0; i < texts.size(); ++i) {
    const Prompt alone{.sequence = session.cache().create(), .rows = prompts[i].rows};
    session.prefill({&alone, 1});
    EXPECT_EQ(session.logits_on_host(0), together[i]) << texts[i].size() << " tokens";
  }
  EXPECT_EQ(error_of([&] {
              session.prefill({&prompts[0], 1});
            }),
            "prompt: a sequence of 5 entries can be continued by a prompt only at a multiple of 256");
}

// What prompts have in common with earlier ones, or all of a batch with each other, runs once and changes no
// bit.
TEST_P(Prompts, KeptPromptsChangeNoBit) {
  const std::vector<int32_t> text = random_tokens(40, 900);
  const auto beginning = [&](int64_t length, uint64_t seed = 0, int64_t others = 0) {
    std::vector<int32_t> tokens(text.begin(), text.begin() + length);
    const std::vector<int32_t> rest = random_tokens(seed, others);
    tokens.insert(tokens.end(), rest.begin(), rest.end());
    return token_prompt(*model_, tokens).rows;
  };
  Session fresh(*model_, backend_, {.sequences = 4, .entries = 1000});
  Session session(*model_, backend_, {.sequences = 4, .entries = 1000, .kept_prompts = 2});
  // Runs prompts in both sessions, goes on with a few tokens, and says how many rows did not run.
  const auto run = [&](const std::vector<std::vector<StepRow>>& rows) {
    const Statistics before = session.statistics();
    std::vector<Prompt> prompts, plain;
    int64_t all = 0;
    for (const auto& r : rows) {
      prompts.push_back({.sequence = session.cache().create(), .rows = r});
      plain.push_back({.sequence = fresh.cache().create(), .rows = r});
      all += std::ssize(r);
    }
    session.prefill(prompts);
    fresh.prefill(plain);
    for (size_t p = 0; p < rows.size(); ++p) {
      EXPECT_EQ(session.logits_on_host(static_cast<int64_t>(p)),
                fresh.logits_on_host(static_cast<int64_t>(p)));
    }
    const std::vector<int32_t> after = random_tokens(41, 3);
    for (size_t p = 0; p < rows.size(); ++p) {
      EXPECT_EQ(session.cache().length(prompts[p].sequence), std::ssize(rows[p]));
      EXPECT_EQ(feed(session, prompts[p].sequence, after), feed(fresh, plain[p].sequence, after));
      session.cache().release(prompts[p].sequence);
      fresh.cache().release(plain[p].sequence);
    }
    const int64_t kept = session.statistics().prompt_rows_kept - before.prompt_rows_kept;
    EXPECT_EQ(session.statistics().prompt_rows - before.prompt_rows + kept, all);
    return kept;
  };
  EXPECT_EQ(run({beginning(300)}), 0);
  EXPECT_EQ(run({beginning(300)}), 256);
  EXPECT_EQ(run({beginning(256)}), 0) << "the last row must run, and with it its chunk";
  EXPECT_EQ(run({beginning(257)}), 256);
  EXPECT_EQ(run({beginning(700, 1, 50)}), 256);  // a longer one takes the place of its beginning
  EXPECT_EQ(run({beginning(900)}), 512) << "only whole chunks are alike";
  EXPECT_EQ(run({beginning(255, 2, 100)}), 0);
  // Another place of the same tokens is another prompt.
  std::vector<StepRow> moved = beginning(600);
  for (StepRow& row : moved) row.position[0] += 1;
  EXPECT_EQ(run({moved}), 0);
  EXPECT_EQ(run({moved}), 512);
  // There is room for two: the first text was used least lately.
  EXPECT_EQ(run({beginning(0, 3, 600)}), 0);
  EXPECT_EQ(run({beginning(600)}), 0);
  // A batch whose prompts begin alike runs that once.
  EXPECT_EQ(run({beginning(512, 5, 40), beginning(512, 6, 300), beginning(512, 7, 1)}), 3 * 512);
  Session batch(*model_, backend_, {.sequences = 4, .entries = 1000, .kept_prompts = 2});
  std::vector<Prompt> prompts;
  for (const uint64_t seed : {5, 6, 7})
    prompts.push_back({.sequence = batch.cache().create(), .rows = beginning(600, seed, 10)});
  batch.prefill(prompts);
  EXPECT_EQ(batch.statistics().prompt_rows, 512 + 3 * 98);
  EXPECT_EQ(batch.statistics().prompt_rows_kept, 2 * 512);
}

// Kept prompts take no room that a step needs.
// A model that asks for a stop while it runs for the first time.
class StoppingModel : public StepModel {
 public:
  StoppingModel(const StepModel& model, std::stop_source source)
      : model_(model), source_(std::move(source)) {}
  const ModelTraits& traits() const override { return model_.traits(); }
  void step(const StepInputs& in, const StepOutputs& out) const override {
    source_.request_stop();
    model_.step(in, out);
  }
  std::array<int32_t, 3> position(int64_t index) const override { return model_.position(index); }

 private:
  const StepModel& model_;
  mutable std::stop_source source_;
};

TEST_P(Prompts, AStopEndsALongPromptBetweenItsChunks) {
  const std::vector<int32_t> tokens = random_tokens(11, 700);
  {
    std::stop_source source;
    const StoppingModel model(*model_, source);
    Session session(model, backend_, {.sequences = 2, .entries = 800, .kept_prompts = 2});
    Prompt prompt{.sequence = session.cache().create(), .rows = token_prompt(model, tokens).rows};
    EXPECT_FALSE(session.prefill({&prompt, 1}, WantLogits::kYes, {}, source.get_token()));
    EXPECT_EQ(session.statistics().prompt_forwards, 1);
    EXPECT_EQ(session.cache().length(prompt.sequence), 256);
    // What was not whole is not kept for others.
    prompt.sequence = session.cache().create();
    EXPECT_TRUE(session.prefill({&prompt, 1}));
    EXPECT_EQ(session.statistics().prompt_forwards, 4);
    EXPECT_EQ(session.statistics().prompt_rows_kept, 0);
  }
  // Methods hand on what they have: nothing.
  for (const char* decoder : {"sequential", "lookup", "jacobi"}) {
    std::stop_source source;
    const StoppingModel model(*model_, source);
    Session session(model, backend_, {.sequences = 1, .entries = 800});
    const Generation one{.prompt = token_prompt(model, tokens), .max_tokens = 20};
    const auto output = make_decoder(parse_decoder_spec(decoder))
                            ->decode(session, {&one, 1}, {.stop = source.get_token()})[0];
    EXPECT_TRUE(output.tokens.empty()) << decoder;
    EXPECT_FALSE(output.finished);
    EXPECT_EQ(session.statistics().prompt_forwards, 1);
  }
}

TEST_P(Prompts, KeptPromptsMakeRoom) {
  Session session(*model_, backend_, {.sequences = 1, .entries = 640, .kept_prompts = 3});
  Session fresh(*model_, backend_, {.sequences = 1, .entries = 640});
  for (uint64_t seed = 0; seed < 6; ++seed) {
    const std::vector<StepRow> rows = token_prompt(*model_, random_tokens(50 + seed % 3, 600)).rows;
    const Prompt prompt{.sequence = session.cache().create(), .rows = rows};
    const Prompt plain{.sequence = fresh.cache().create(), .rows = rows};
    session.prefill({&prompt, 1});
    fresh.prefill({&plain, 1});
    const std::vector<int32_t> after = random_tokens(seed, 40);
    EXPECT_EQ(feed(session, prompt.sequence, after), feed(fresh, plain.sequence, after));
    EXPECT_EQ(session.cache().free_pages(), 0) << "none is idle while a sequence is full";
    session.cache().release(prompt.sequence);
    fresh.cache().release(plain.sequence);
  }
}

// A crop below the prompt's end restarts at a chunk border.
TEST_P(Prompts, CroppedPromptEqualsShorterPrompt) {
  const std::vector<int32_t> text = random_tokens(30, 600);
  Session session(*model_, backend_, {.sequences = 2, .entries = 700});
  for (const int64_t length : {1, 255, 256, 257, 300, 512, 599, 600}) {
    const Prompt whole{.sequence = session.cache().create(), .rows = token_prompt(*model_, text).rows};
    session.prefill({&whole, 1});
    feed(session, whole.sequence, random_tokens(31, 5));
    const int64_t rows = session.statistics().prompt_rows;
    session.crop_prompt(whole, length);
    const std::vector<float> cropped = session.logits_on_host(0);
    EXPECT_LE(session.statistics().prompt_rows - rows, 256) << "the whole prompt ran again";
    const Prompt fresh{.sequence = session.cache().create(),
                       .rows = {whole.rows.begin(), whole.rows.begin() + length}};
    session.prefill({&fresh, 1});
    EXPECT_EQ(session.logits_on_host(0), cropped) << length << " rows";
    EXPECT_EQ(session.cache().length(whole.sequence), length);
    const std::vector<int32_t> after = random_tokens(32, 3);
    EXPECT_EQ(feed(session, whole.sequence, after), feed(session, fresh.sequence, after))
        << length << " rows";
    session.cache().release(whole.sequence);
    session.cache().release(fresh.sequence);
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, Prompts, testing::ValuesIn(devices_for_methods()),
                         [](const auto& test) { return test::device_name(test.param); });

}  // namespace
}  // namespace volley::test
