// Masked diffusion in blocks: what is filled when, what it costs, and that an output does not depend on what
// is made beside it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "core/base/error.h"
#include "core/decode/decoder.h"
#include "core/decode/lane.h"
#include "core/decode/unmasking.h"
#include "tests/support/devices.h"
#include "tests/support/sanitized.h"
#include "tests/support/toy_models.h"

namespace volley::test {
namespace {

constexpr int32_t kMask = 63;
constexpr int64_t kVocabulary = 64;

class Diffusion : public testing::TestWithParam<std::string> {
 protected:
  std::shared_ptr<const Backend> backend_ = make_backend(GetParam(), 2);
  std::unique_ptr<StepModel> model_ =
      make_toy_llama(*backend_, 17, {.vocab = kVocabulary, .spread = 0.4f, .mask_token = kMask});

  Generation generation(uint64_t seed, int64_t length, float temperature = 0.0f) const {
    std::vector<int32_t> prompt;
    for (uint64_t i = 0; i < 3 + seed % 5; ++i)
      prompt.push_back(static_cast<int32_t>((7 * seed + 3 * i) % 60));
    return {.prompt = token_prompt(*model_, prompt),
            .chain = {.temperature = temperature},
            .seed = seed,
            .max_tokens = length,
            .mask_token = kMask};
  }

  std::vector<GenerationOutput> run(const std::string& decoder, std::span<const Generation> generations,
                                    Observer* observer = nullptr) const {
    Session session(*model_, backend_,
                    {.sequences = 2 * static_cast<int64_t>(generations.size()), .entries = 128});
    return make_decoder(parse_decoder_spec(decoder))->decode(session, generations, {.observer = observer});
  }
};

// Every kind of certainty, rule and cache.
const std::vector<std::string> kMethods{
    "diffusion:block_length=8",
    "diffusion:block_length=8,steps=6",
    "diffusion:block_length=8,steps=6,remasking=random,cache=prefix",
    "diffusion:block_length=8,steps=6,remasking=margin,cache=dual",
    "diffusion:block_length=8,threshold=0.4,cache=dual",
    "diffusion:block_length=8,threshold=0.4,cache=prefix,second_forward=always",
    "diffusion:block_length=8,threshold=1.5,remasking=entropy",
    "diffusion:block_length=5,threshold=0.3,remasking=margin,cache=prefix",
    "diffusion:block_length=32,factor=2.5,cache=dual"};

TEST_P(Diffusion, EveryPlaceIsFilledOnceBlockAfterBlock) {
  class Recorder : public Observer {
   public:
    void on_step(const StepEvent& event) override {
      for (size_t i = 0; i < event.positions.size(); ++i) {
        EXPECT_TRUE(filled.emplace(event.positions[i], event.tokens[i]).second) << "filled twice";
        EXPECT_NE(event.tokens[i], kMask);
        EXPECT_GE(event.positions[i] / block, last_block);
        last_block = event.positions[i] / block;
      }
      EXPECT_EQ(event.step, steps++);
      EXPECT_EQ(event.done, std::ssize(filled));
      EXPECT_EQ(event.accepted, std::ssize(event.positions));
      EXPECT_LE(event.accepted, event.proposed);
    }
    int32_t block = 0, last_block = 0;
    int64_t steps = 0;
    std::map<int32_t, int32_t> filled;
  };
  for (const std::string& method : kMethods) {
    SCOPED_TRACE(method);
    for (const float temperature : {0.0f, 0.9f}) {
      Recorder recorder;
      recorder.block = std::stoi(parse_decoder_spec(method).options.at("block_length"));
      const Generation one = generation(4, 21, temperature);
      const GenerationOutput output = run(method, {&one, 1}, &recorder)[0];
      EXPECT_TRUE(output.finished);
      ASSERT_EQ(output.tokens.size(), 21u);
      ASSERT_EQ(recorder.filled.size(), 21u);
      EXPECT_EQ(recorder.steps, output.forwards);
      for (const auto& [position, token] : recorder.filled)
        EXPECT_EQ(output.tokens[static_cast<size_t>(position)], token) << "what is filled stays";
    }
  }
}

TEST_P(Diffusion, BatchEqualsSinglesAndSeedsTellApart) {
  for (const std::string& method : kMethods) {
    SCOPED_TRACE(method);
    std::vector<Generation> generations;
    for (uint64_t seed = 0; seed < 5; ++seed)
      generations.push_back(
          generation(seed, 13 + 3 * static_cast<int64_t>(seed), seed % 2 == 0 ? 1.1f : 0.0f));
    // One with a guidance partner, whose prompt says nothing.
    generations[3].unconditional = generations[3].prompt;
    for (StepRow& row : generations[3].unconditional->rows) row.token = kMask;
    generations[3].chain.guidance.scale = 2.0f;
    const auto together = run(method, generations);
    for (size_t i = 0; i < generations.size(); ++i) {
      const auto alone = run(method, {&generations[i], 1})[0];
      EXPECT_EQ(alone.tokens, together[i].tokens) << "generation " << i;
      EXPECT_EQ(alone.forwards, together[i].forwards);
      EXPECT_EQ(alone.rows, together[i].rows);
    }
    Generation other = generations[0];
    other.seed = 77;
    EXPECT_NE(run(method, {&other, 1})[0].tokens, together[0].tokens);
  }
}

TEST_P(Diffusion, ForwardsAndRowsAreAsTheMethodSays) {
  // Two blocks of 8 behind 7 rows of prompt, four forwards each.
  const Generation one = generation(4, 16);
  ASSERT_EQ(one.prompt.rows.size(), 7u);
  const auto plain = run("diffusion:block_length=8,steps=8", {&one, 1})[0];
  EXPECT_EQ(plain.forwards, 8);
  EXPECT_EQ(plain.rows, 8 * 23);
  const auto prefix = run("diffusion:block_length=8,steps=8,cache=prefix", {&one, 1})[0];
  EXPECT_EQ(prefix.forwards, 8);
  EXPECT_EQ(prefix.rows, 2 * 23 + 3 * 16 + 3 * 8);
  const auto dual = run("diffusion:block_length=8,steps=8,cache=dual", {&one, 1})[0];
  EXPECT_EQ(dual.forwards, 8);
  EXPECT_EQ(dual.rows, 2 * 23 + 6 * 8);
  // One token a forward unless told otherwise; with all places sure enough, one forward a block.
  EXPECT_EQ(run("diffusion:block_length=8", {&one, 1})[0].forwards, 16);
  EXPECT_EQ(run("diffusion:block_length=8,threshold=0", {&one, 1})[0].forwards, 2);
  EXPECT_EQ(run("diffusion:block_length=8,threshold=0,cache=dual", {&one, 1})[0].forwards, 2);
  EXPECT_EQ(
      run("diffusion:block_length=8,threshold=0,cache=dual,second_forward=always", {&one, 1})[0].forwards, 4);
  // Forwards that do not divide: the first blocks get one more. A last block that is short gets as many.
  EXPECT_EQ(run("diffusion:block_length=8,steps=5", {&one, 1})[0].forwards, 5);
  const Generation odd = generation(4, 19);
  EXPECT_EQ(run("diffusion:block_length=8,steps=9", {&odd, 1})[0].forwards, 9);
}

// The same by plain loops without a cache, from the logits of whole sequences.
class Oracle {
 public:
  Oracle(const StepModel& model, std::shared_ptr<const Backend> backend, UnmaskRule rule)
      : session_(model, std::move(backend), {.entries = 128}), rule_(rule) {}

  std::vector<int32_t> decode(const Generation& generation, int64_t block, int64_t per_step) {
    std::vector<int32_t> tokens;
    for (const StepRow& row : generation.prompt.rows) tokens.push_back(row.token);
    const size_t prompt = tokens.size();
    tokens.resize(prompt + static_cast<size_t>(generation.max_tokens), kMask);
    uint32_t step = 0;
    for (size_t begin = prompt; begin < tokens.size(); begin += static_cast<size_t>(block)) {
      const size_t end = std::min(tokens.size(), begin + static_cast<size_t>(block));
      while (std::count(tokens.begin() + static_cast<int64_t>(begin),
                        tokens.begin() + static_cast<int64_t>(end), kMask) > 0) {
        fill(tokens, {begin, end}, generation, step++, per_step);
      }
    }
    return {tokens.begin() + static_cast<int64_t>(prompt), tokens.end()};
  }

 private:
  struct Guess {
    size_t place = 0;
    int32_t token = 0;
    int32_t other = 0;      // the likeliest but for the mask
    double sureness = 0.0;  // the higher the surer
  };

  void fill(std::vector<int32_t>& tokens, std::pair<size_t, size_t> block, const Generation& generation,
            uint32_t step, int64_t per_step) {
    const SequenceId sequence = session_.cache().create();
    SequenceStep whole{.sequence = sequence,
                       .rows = token_prompt(session_.model(), tokens).rows,
                       .visibility = {.kind = MaskKind::kFull},
                       .write = CacheWrite::kNone};
    for (size_t i = 0; i < tokens.size(); ++i) whole.wanted.logits.push_back(static_cast<int32_t>(i));
    session_.step({&whole, 1});
    std::vector<Guess> guesses;
    for (size_t i = block.first; i < block.second; ++i) {
      if (tokens[i] != kMask) continue;
      const auto place = static_cast<int64_t>(i) - std::ssize(generation.prompt.rows);
      SampleRow row = make_sample_row(
          generation.chain, {.seed = generation.seed, .stream = generation.stream, .position = place},
          {.conditional = static_cast<int32_t>(i)});
      row.draw = step;
      const int32_t token = session_.sample({&row, 1}).tokens[0];
      std::vector<float> logits = session_.logits_on_host(static_cast<int64_t>(i));
      std::vector<double> p;
      double total = 0.0, entropy = 0.0;
      for (const float logit : logits) total += p.emplace_back(std::exp(static_cast<double>(logit)));
      for (double& value : p) {
        value /= total;
        entropy -= value * std::log(value);
      }
      const double of_token = p[static_cast<size_t>(token)];
      const auto other = std::max_element(p.begin(), p.end() - 1) - p.begin();  // the mask is the last
      std::ranges::sort(p, std::greater<>());
      guesses.push_back({.place = i,
                         .token = token,
                         .other = static_cast<int32_t>(other),
                         .sureness = rule_.certainty == Certainty::kEntropy  ? -entropy
                                     : rule_.certainty == Certainty::kMargin ? p[0] - p[1]
                                                                             : of_token});
    }
    session_.cache().release(sequence);
    std::ranges::stable_sort(guesses, std::greater<>(), &Guess::sureness);
    bool is_stuck = true;
    for (size_t n = 0; n < guesses.size(); ++n) {
      const double sureness = guesses[n].sureness;
      const double threshold = rule_.certainty == Certainty::kEntropy ? -rule_.threshold.value_or(0.0)
                                                                      : rule_.threshold.value_or(0.0);
      const bool is_filled = rule_.threshold ? sureness >= threshold
                             : rule_.factor  ? sureness >= 1.0 - *rule_.factor / static_cast<double>(n + 2)
                                             : static_cast<int64_t>(n) < per_step;
      if (n > 0 && !is_filled) break;
      tokens[guesses[n].place] = guesses[n].token;
      is_stuck = is_stuck && guesses[n].token == kMask;
    }
    if (is_stuck) tokens[guesses[0].place] = guesses[0].other;
  }

  Session session_;
  UnmaskRule rule_;
};

TEST_P(Diffusion, TheRulesEqualPlainLoops) {
  struct Rule {
    const char* options;
    UnmaskRule rule;
  };
  const std::vector<Rule> rules{
      {"steps=8", {}},
      {"steps=8,remasking=margin", {.certainty = Certainty::kMargin}},
      {"steps=8,remasking=entropy", {.certainty = Certainty::kEntropy}},
      {"threshold=0.35", {.threshold = 0.35}},
      {"threshold=0.2,remasking=margin", {.certainty = Certainty::kMargin, .threshold = 0.2}},
      {"threshold=2,remasking=entropy", {.certainty = Certainty::kEntropy, .threshold = 2.0}},
      {"factor=1.9", {.factor = 1.9}}};
  std::set<int64_t> forwards;
  for (const Rule& rule : rules) {
    Oracle oracle(*model_, backend_, rule.rule);
    for (const float temperature : {0.0f, 0.7f, 1.6f}) {
      for (uint64_t seed = 0; seed < (kSanitized ? 1 : 4); ++seed) {
        const Generation one = generation(seed, 16, temperature);
        const auto output = run(std::string("diffusion:block_length=8,") + rule.options, {&one, 1})[0];
        EXPECT_EQ(output.tokens, oracle.decode(one, 8, 2))
            << rule.options << ", temperature " << temperature << ", seed " << seed;
        forwards.insert(output.forwards);
      }
    }
  }
  EXPECT_GT(forwards.size(), 3u) << "the rules fill different numbers of places";
}

TEST_P(Diffusion, AnOutputEndsWithWhatEndsIt) {
  Generation one = generation(2, 24);
  const auto whole = run("diffusion:block_length=8", {&one, 1})[0];
  const int32_t end = whole.tokens[11];
  const auto first = std::ranges::find(whole.tokens, end) - whole.tokens.begin();
  one.stop_tokens = {end};
  for (const char* cache : {"off", "dual"}) {
    const auto all = run(std::string("diffusion:block_length=8,cache=") + cache, {&one, 1})[0];
    EXPECT_TRUE(all.finished);
    EXPECT_EQ(std::ranges::count(all.tokens, end), 1);
    EXPECT_EQ(all.tokens.back(), end);
  }
  const auto stopped = run("diffusion:block_length=8", {&one, 1})[0];
  EXPECT_TRUE(
      std::ranges::equal(stopped.tokens, std::span(whole.tokens).first(static_cast<size_t>(first) + 1)));
  EXPECT_LT(stopped.forwards, whole.forwards);

  // Each token is asked about once, in output order, when nothing before it is hidden.
  one.stop_tokens.clear();
  std::vector<int32_t> asked;
  one.ends_with = [&asked](int32_t token) {
    asked.push_back(token);
    return asked.size() == 10;
  };
  const auto cut = run("diffusion:block_length=8", {&one, 1})[0];
  EXPECT_TRUE(cut.finished);
  EXPECT_EQ(cut.tokens, asked);
  EXPECT_TRUE(std::ranges::equal(cut.tokens, std::span(whole.tokens).first(10)));
}

TEST_P(Diffusion, AStoppedRunKeepsWhatIsWholeFromTheLeft) {
  struct Stopper : Observer {
    void on_step(const StepEvent& event) override {
      if (event.step == 9) source.request_stop();
    }
    std::stop_source source;
  };
  const Generation one = generation(2, 24);
  const auto whole = run("diffusion:block_length=8", {&one, 1})[0];
  Stopper stopper;
  Session session(*model_, backend_, {.entries = 128});
  const auto part =
      make_decoder(parse_decoder_spec("diffusion:block_length=8"))
          ->decode(session, {&one, 1}, {.observer = &stopper, .stop = stopper.source.get_token()})[0];
  EXPECT_FALSE(part.finished);
  EXPECT_EQ(part.forwards, 10);
  ASSERT_GE(part.tokens.size(), 8u);
  ASSERT_LE(part.tokens.size(), 10u);
  EXPECT_TRUE(std::ranges::equal(part.tokens, std::span(whole.tokens).first(part.tokens.size())));
}

// A model of four tokens guesses the mask often: the place stays hidden, and the run ends all the same.
TEST_P(Diffusion, AGuessedMaskIsNoToken) {
  const auto model = make_toy_llama(*backend_, 5, {.vocab = 4, .mask_token = 2});
  int64_t longer = 0;
  for (uint64_t seed = 0; seed < 6; ++seed) {
    for (const float temperature : {0.0f, 1.0f}) {
      for (const char* options : {"steps=4", "threshold=0.3", "steps=4,cache=dual"}) {
        Session session(*model, backend_, {.entries = 64});
        const Generation one{
            .prompt = token_prompt(*model, std::vector<int32_t>{1, static_cast<int32_t>(seed % 2)}),
            .chain = {.temperature = temperature},
            .seed = seed,
            .max_tokens = 16,
            .mask_token = 2};
        const auto output =
            make_decoder(parse_decoder_spec(std::string("diffusion:block_length=8,") + options))
                ->decode(session, {&one, 1}, {})[0];
        ASSERT_EQ(output.tokens.size(), 16u);
        EXPECT_EQ(std::ranges::count(output.tokens, 2), 0);
        longer += output.forwards > 4;
      }
    }
  }
  EXPECT_GT(longer, 0) << "no mask was guessed: the test shows nothing";
}

TEST_P(Diffusion, AGuidancePartnerWithThePromptItselfChangesNothing) {
  for (const char* cache : {"off", "prefix", "dual"}) {
    const std::string method = std::string("diffusion:block_length=8,steps=6,cache=") + cache;
    Generation one = generation(3, 16);
    const auto alone = run(method, {&one, 1})[0].tokens;
    one.unconditional = one.prompt;
    one.chain.guidance.scale = 3.0f;
    EXPECT_EQ(run(method, {&one, 1})[0].tokens, alone) << cache;
    for (StepRow& row : one.unconditional->rows) row.token = kMask;
    EXPECT_NE(run(method, {&one, 1})[0].tokens, alone) << cache;
  }
}

TEST_P(Diffusion, NonsenseIsRefusedInOneLine) {
  const auto refused = [&](const std::string& decoder, const Generation& one, const StepModel& model) {
    try {
      Session session(model, backend_, {.entries = 128});
      make_decoder(parse_decoder_spec(decoder))->decode(session, {&one, 1}, {});
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  const Generation one = generation(1, 64);
  const std::map<std::string, std::string> faults{
      {"steps=1", "steps=1 for 2 blocks of 32 tokens: expected at least one a block"},
      {"block_length=0", "block_length=0: expected a whole number from 1 to 16777216"},
      {"remasking=luck", "remasking=luck: expected low_confidence or margin or entropy or random"},
      {"threshold=1.5", "threshold=1.5: expected off or a number from 0 to 1"},
      {"threshold=high", "threshold=high: expected off or a number from 0 to 1"},
      {"threshold=0.9,factor=1", "threshold and factor: each says how many places a step fills"},
      {"threshold=0.9,steps=8", "threshold and steps: each says how many places a step fills"},
      {"factor=1,steps=8", "factor and steps: each says how many places a step fills"},
      {"threshold=0.9,remasking=random", "threshold: remasking=random has no certainty to ask for"},
      {"factor=1,remasking=margin", "factor: only remasking=low_confidence has one"},
      {"cache=both", "cache=both: expected off or prefix or dual"}};
  for (const auto& [options, fault] : faults)
    EXPECT_EQ(refused("diffusion:" + options, one, *model_), "--decoder diffusion: " + fault);
  Generation other = one;
  other.mask_token = -1;
  EXPECT_EQ(refused("diffusion", other, *model_), "--decoder diffusion: model llada has no mask token");
  other = one;
  other.chain.repetition_penalty = 1.2f;
  EXPECT_EQ(refused("diffusion", other, *model_), "--decoder diffusion: knows no repetition penalty");
  other = one;
  other.unconditional = token_prompt(*model_, std::vector<int32_t>{1});
  EXPECT_EQ(refused("diffusion", other, *model_),
            "--decoder diffusion: the guidance partner's prompt has another length");
  const auto causal = make_toy_llama(*backend_, 17);
  EXPECT_EQ(refused("diffusion", one, *causal), "--decoder diffusion: model llama predicts no hidden places");
}

INSTANTIATE_TEST_SUITE_P(Backends, Diffusion, testing::ValuesIn(devices_for_methods()),
                         [](const auto& test) { return test::device_name(test.param); });

TEST(UnmaskRule, ChoosesTheSurestPlaces) {
  const std::vector<float> p{0.2f, 0.9f, 0.5f, 0.9f, 0.7f};
  using Places = std::vector<int32_t>;
  EXPECT_EQ(UnmaskRule{}.choose(p, 1), (Places{1})) << "of equals the first";
  EXPECT_EQ(UnmaskRule{}.choose(p, 3), (Places{1, 3, 4}));
  EXPECT_EQ(UnmaskRule{}.choose(p, 9), (Places{0, 1, 2, 3, 4}));
  EXPECT_EQ(UnmaskRule{.threshold = 0.5}.choose(p, 1), (Places{1, 2, 3, 4})) << "at least so sure";
  EXPECT_EQ(UnmaskRule{.threshold = 0.95}.choose(p, 3), (Places{1})) << "the surest in any case";
  EXPECT_EQ((UnmaskRule{.certainty = Certainty::kEntropy, .threshold = 0.5}.choose(p, 1)), (Places{0, 2}));
  EXPECT_EQ((UnmaskRule{.certainty = Certainty::kEntropy}.choose(p, 2)), (Places{0, 2}));
  // The surest, then 3 * 0.1 <= f, 4 * 0.3 <= f, 5 * 0.5 <= f, 6 * 0.8 <= f.
  EXPECT_EQ(UnmaskRule{.factor = 0.2}.choose(p, 5), (Places{1}));
  EXPECT_EQ(UnmaskRule{.factor = 1.0}.choose(p, 5), (Places{1, 3}));
  EXPECT_EQ(UnmaskRule{.factor = 1.3}.choose(p, 5), (Places{1, 3, 4}));
  EXPECT_EQ(UnmaskRule{.factor = 4.7}.choose(p, 5), (Places{1, 2, 3, 4})) << "the last place waits, too";
  EXPECT_EQ(UnmaskRule{.factor = 4.9}.choose(p, 5), (Places{0, 1, 2, 3, 4}));
  EXPECT_TRUE(UnmaskRule{}.choose({}, 4).empty());
  EXPECT_EQ(UnmaskRule{}.surest(p), 1);
}

TEST(UnmaskRule, ScheduleIsThePublishedOne) {
  EXPECT_EQ(unmask_schedule(16, 4), (std::vector<int64_t>{4, 4, 4, 4}));
  EXPECT_EQ(unmask_schedule(10, 4), (std::vector<int64_t>{3, 3, 2, 2}));
  EXPECT_EQ(unmask_schedule(3, 8), (std::vector<int64_t>{1, 1, 1}));
}

}  // namespace
}  // namespace volley::test
