// Steps through a session: every field of a step, and the arithmetic that must not depend on company.
#include "core/nn/step.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/decode/generation.h"
#include "tests/unit/nn/step_fixture.h"

namespace volley::test {
namespace {

constexpr int64_t kVocab = kStepVocab;

class Step : public StepFixture {};

// Arithmetic that does not depend on company: a chain hidden at random scratch slots of a random tree, across
// a chunk border, gives logits and cache bit-equal to one-token decoding.
TEST_P(Step, ChainHiddenInATreeEqualsOneTokenDecoding) {
  for (uint64_t seed = 0; seed < 12; ++seed) {
    if (seed == 8) {  // bf16 weights, wide enough for every product kernel
      model_ =
          make_toy_llama(*backend_, 4, {.dim = 64, .layers = 2, .heads = 4, .kv_heads = 2, .spread = 0.2f},
                         WeightType::kBF16);
    }
    TestRandom random(seed);
    const int64_t before = 240 + random.below(20);  // the chain crosses the border at 256
    const std::vector<int32_t> context = random_tokens(seed, before);
    const std::vector<int32_t> chain = random_tokens(seed + 100, 12);
    const int64_t extra = 20 + random.below(30);

    Session session(*model_, backend_, {.sequences = 3, .entries = 400});
    const SequenceId plain = session.cache().create(), other = session.cache().create();
    feed(session, plain, context);
    feed(session, other, random_tokens(seed + 7, 33));
    const SequenceId hidden = session.cache().fork(plain);

    // Rows of the tree: the chain's at random places in order, random rows between them.
    const int64_t rows = static_cast<int64_t>(chain.size()) + extra;
    std::vector<int32_t> places;
    while (places.size() < chain.size()) {
      const auto place = static_cast<int32_t>(random.below(rows));
      if (std::count(places.begin(), places.end(), place) == 0) places.push_back(place);
    }
    std::sort(places.begin(), places.end());
    SequenceStep step{.sequence = hidden, .visibility = {.kind = MaskKind::kTree}};
    size_t next = 0;
    for (int32_t row = 0; row < rows; ++row) {
      const bool on_chain = next < places.size() && places[next] == row;
      const int64_t depth = on_chain ? static_cast<int64_t>(next) : random.below(12);
      step.rows.push_back({.token = on_chain ? chain[next] : static_cast<int32_t>(random.below(kVocab)),
                           .position = model_->position(before + depth)});
      step.visibility.parents.push_back(on_chain ? (next == 0 ? -1 : places[next - 1])
                                                 : static_cast<int32_t>(random.below(row + 1)) - 1);
      step.wanted.logits.push_back(row);
      next += on_chain;
    }
    // Another sequence in the same step, with rows of its own.
    SequenceStep company{.sequence = other, .rows = {{.token = 1, .position = model_->position(33)}}};
    company.wanted.logits = {0};
    const std::vector<SequenceStep> steps{company, step};
    session.step(steps);
    std::vector<std::vector<float>> tree_logits;
    for (int32_t place : places) tree_logits.push_back(session.logits_on_host(session.logits_row(1, place)));
    session.cache().commit(hidden, places);

    for (size_t i = 0; i < chain.size(); ++i) {
      ASSERT_EQ(feed(session, plain, {&chain[i], 1}), tree_logits[i]) << "seed " << seed << ", token " << i;
    }
    const std::vector<int32_t> after = random_tokens(seed + 200, 3);
    EXPECT_EQ(feed(session, hidden, after), feed(session, plain, after)) << "the caches differ";
  }
}

TEST_P(Step, CropAndAppendEqualsFresh) {
  const std::vector<int32_t> kept = random_tokens(1, 270), dropped = random_tokens(2, 30),
                             appended = random_tokens(3, 9);
  Session session(*model_, backend_, {.sequences = 2, .entries = 400});
  const SequenceId cropped = session.cache().create(), fresh = session.cache().create();
  feed(session, cropped, kept);
  feed(session, cropped, dropped);
  session.cache().crop(cropped, static_cast<int64_t>(kept.size()));
  feed(session, fresh, kept);
  EXPECT_EQ(feed(session, cropped, appended), feed(session, fresh, appended));
}

TEST_P(Step, MasksThatMeanTheSameGiveTheSameBits) {
  const std::vector<int32_t> tokens = random_tokens(5, 10);
  std::vector<std::vector<float>> results;
  for (const MaskKind kind : {MaskKind::kCausal, MaskKind::kTree, MaskKind::kBits}) {
    Session session(*model_, backend_, {.sequences = 1, .entries = 64});
    SequenceStep step{.sequence = session.cache().create(), .visibility = {.kind = kind}};
    for (int32_t i = 0; i < 10; ++i) {
      step.rows.push_back({.token = tokens[static_cast<size_t>(i)], .position = model_->position(i)});
      step.wanted.logits.push_back(i);
      if (kind == MaskKind::kTree) step.visibility.parents.push_back(i - 1);
      if (kind == MaskKind::kBits) {
        for (int32_t j = 0; j < 10; ++j) step.visibility.bits.push_back(j <= i);
      }
    }
    session.step({&step, 1});
    results.emplace_back();
    for (int64_t i = 0; i < 10; ++i) {
      const std::vector<float> row = session.logits_on_host(i);
      results.back().insert(results.back().end(), row.begin(), row.end());
    }
  }
  EXPECT_EQ(results[1], results[0]);
  EXPECT_EQ(results[2], results[0]);
}

TEST_P(Step, ContextLimitHidesLaterEntries) {
  const std::vector<int32_t> tokens = random_tokens(6, 20);
  Session session(*model_, backend_, {.sequences = 2, .entries = 64});
  const SequenceId whole = session.cache().create(), cut = session.cache().create();
  feed(session, whole, tokens);
  feed(session, cut, std::span(tokens).first(8));
  std::vector<SequenceStep> steps;
  for (SequenceId id : {whole, cut}) {
    steps.push_back({.sequence = id, .rows = {{.token = 3, .position = model_->position(8)}}});
    steps.back().visibility.context = 8;
    steps.back().wanted.logits = {0};
  }
  session.step(steps);
  EXPECT_EQ(session.logits_on_host(session.logits_row(0, 0)),
            session.logits_on_host(session.logits_row(1, 0)));
}

TEST_P(Step, ReplacedEntriesAreSeenInTheirPlaces) {
  std::vector<int32_t> tokens = random_tokens(7, 12);
  Session session(*model_, backend_, {.sequences = 2, .entries = 64});
  const SequenceId replaced = session.cache().create(), fresh = session.cache().create();
  feed(session, replaced, tokens);
  tokens.back() = (tokens.back() + 5) % static_cast<int32_t>(kVocab);
  const std::vector<float> expected = feed(session, fresh, tokens);
  SequenceStep step{.sequence = replaced,
                    .rows = {{.token = tokens.back(), .position = model_->position(11)}},
                    .write = CacheWrite::kReplace,
                    .replaced = {11}};
  step.wanted.logits = {0};
  session.step({&step, 1});
  EXPECT_EQ(session.logits_on_host(0), expected);
  EXPECT_EQ(session.cache().length(replaced), 12);
  EXPECT_EQ(feed(session, replaced, std::vector<int32_t>{2}), feed(session, fresh, std::vector<int32_t>{2}));
}

TEST_P(Step, RowsThatAreNotWrittenAreGone) {
  Session session(*model_, backend_, {.sequences = 1, .entries = 64});
  const SequenceId id = session.cache().create();
  feed(session, id, random_tokens(8, 5));
  SequenceStep step{.sequence = id, .write = CacheWrite::kNone};
  for (int32_t i = 0; i < 4; ++i) step.rows.push_back({.token = i, .position = model_->position(5 + i)});
  step.wanted.logits = {3};
  session.step({&step, 1});
  const std::vector<float> first = session.logits_on_host(0);
  EXPECT_EQ(session.cache().length(id), 5);
  session.step({&step, 1});
  EXPECT_EQ(session.logits_on_host(0), first);
}

TEST_P(Step, EmbeddingRowsEqualTokenRows) {
  // The toy's embedding table is its first random tensor.
  TestRandom random(3);
  std::vector<float> table(kVocab * 32);
  for (float& value : table) value = random.normal();
  const std::vector<int32_t> tokens = random_tokens(9, 7);
  Session session(*model_, backend_, {.sequences = 2, .entries = 64});
  std::vector<Prompt> prompts(2);
  for (size_t i = 0; i < 7; ++i) {
    const auto position = model_->position(static_cast<int64_t>(i));
    prompts[0].rows.push_back({.token = tokens[i], .position = position});
    const bool given = i % 2 == 0;  // both kinds in one prompt
    prompts[1].rows.push_back({.kind = given ? RowKind::kEmbedding : RowKind::kToken,
                               .token = given ? -1 : tokens[i],
                               .position = position});
    const auto row = table.begin() + tokens[i] * 32;
    if (given) prompts[1].embeddings.insert(prompts[1].embeddings.end(), row, row + 32);
  }
  for (Prompt& prompt : prompts) prompt.sequence = session.cache().create();
  session.prefill(prompts);
  EXPECT_EQ(session.logits_on_host(0), session.logits_on_host(1));
}

TEST_P(Step, LayerSubsetsAndPhasesRunAsSeparatePasses) {
  Session session(*model_, backend_, {.sequences = 3, .entries = 64});
  std::vector<SequenceStep> steps;
  for (int32_t i = 0; i < 3; ++i) {
    steps.push_back(
        {.sequence = session.cache().create(), .rows = {{.token = 4, .position = model_->position(0)}}});
    steps.back().wanted = {.logits = {0}, .hidden_layers = {0}};
  }
  steps[1].layers = {0};
  steps[2].phase = Phase::kPrompt;
  session.step(steps);
  EXPECT_EQ(session.statistics().forwards, 2);
  EXPECT_EQ(session.statistics().prompt_forwards, 1);
  std::vector<std::vector<float>> logits, hidden;
  for (int64_t i = 0; i < 3; ++i) {
    logits.push_back(session.logits_on_host(session.logits_row(i, 0)));
    hidden.push_back(session.hidden(i, 0));
  }
  EXPECT_EQ(hidden[0], hidden[1]);
  EXPECT_NE(logits[0], logits[1]);
  // Each alone gives the same.
  for (size_t i = 0; i < 3; ++i) {
    session.step({&steps[i], 1});
    EXPECT_EQ(session.logits_on_host(0), logits[i]);
  }
}

// The rows behind the last norm are those behind the last layer, normed: x / rms(x) times a weight that is
// the same for all rows. Asking for them changes nothing else.
TEST_P(Step, RowsBehindTheLastNormAreHandedOut) {
  Session session(*model_, backend_, {.sequences = 3, .entries = 700});
  const auto last = static_cast<int32_t>(model_->traits().layers) - 1;
  const auto dim = static_cast<size_t>(model_->traits().dim);
  std::vector<float> expected;  // [dim] the norm's weight, by the first row
  const auto expect_normed = [&](const std::vector<float>& rows, const std::vector<float>& normed) {
    ASSERT_EQ(rows.size(), normed.size());
    for (size_t begin = 0; begin < rows.size(); begin += dim) {
      double squares = 0.0;
      for (size_t i = 0; i < dim; ++i) squares += static_cast<double>(rows[begin + i]) * rows[begin + i];
      const double rms = std::sqrt(squares / static_cast<double>(dim));
      std::vector<float> weight;
      for (size_t i = 0; i < dim; ++i)
        weight.push_back(static_cast<float>(normed[begin + i] * rms / rows[begin + i]));
      if (expected.empty()) expected = weight;
      for (size_t i = 0; i < dim; ++i) EXPECT_NEAR(weight[i], expected[i], 1e-3) << begin / dim;
    }
  };
  const std::vector<int32_t> text = random_tokens(31, 300);
  const Prompt prompt{.sequence = session.cache().create(), .rows = token_prompt(*model_, text).rows};
  session.prefill({&prompt, 1}, WantLogits::kYes, std::vector<int32_t>{last, kLastNorm});
  const std::vector<float> logits = session.logits_on_host(0);
  const std::vector<float> normed = session.hidden(0, kLastNorm);
  EXPECT_EQ(normed.size(), (300 - 256) * dim) << "of the last chunk";
  expect_normed(session.hidden(0, last), normed);

  const Prompt same{.sequence = session.cache().create(), .rows = prompt.rows};
  session.prefill({&same, 1});
  EXPECT_EQ(session.logits_on_host(0), logits);

  // A tree's rows, some of which have no logits; each has the bits that it has alone.
  SequenceStep step{.sequence = prompt.sequence, .visibility = {.kind = MaskKind::kTree}};
  for (int32_t i = 0; i < 5; ++i)
    step.rows.push_back({.token = 1 + i, .position = model_->position(300 + std::min(i, 1))});
  step.visibility.parents = {-1, 0, 0, 0, 0};
  step.wanted = {.logits = {1}, .hidden_layers = {kLastNorm, last}};
  session.step({&step, 1});
  const std::vector<float> rows = session.hidden(0, kLastNorm);
  expect_normed(session.hidden(0, last), rows);
  for (size_t i = 1; i < 5; ++i) {
    session.cache().discard(prompt.sequence);
    SequenceStep pair = step;
    pair.rows = {step.rows[0], step.rows[i]};
    pair.visibility.parents = {-1, 0};
    session.step({&pair, 1});
    const std::vector<float> alone = session.hidden(0, kLastNorm);
    EXPECT_TRUE(std::equal(alone.begin() + static_cast<int64_t>(dim), alone.end(),
                           rows.begin() + static_cast<int64_t>(i * dim)))
        << i;
  }
}

TEST_P(Step, AttentionTapsAreDistributionsOverVisibleKeys) {
  Session session(*model_, backend_, {.sequences = 1, .entries = 400});
  const SequenceId id = session.cache().create();
  feed(session, id, random_tokens(10, 300));
  SequenceStep step{.sequence = id};
  for (int32_t i = 0; i < 3; ++i) step.rows.push_back({.token = i, .position = model_->position(300 + i)});
  step.wanted.attention = {{.layer = 1, .head = 2}, {.layer = 0, .head = 0}};
  session.step({&step, 1});
  for (const AttentionTap& tap : step.wanted.attention) {
    const Session::AttentionRows rows = session.attention(0, tap);
    ASSERT_EQ(rows.columns, 303);
    for (int64_t r = 0; r < 3; ++r) {
      const auto begin = rows.weights.begin() + r * rows.columns;
      EXPECT_NEAR(std::accumulate(begin, begin + 303, 0.0), 1.0, 1e-5);
      for (int64_t c = 301 + r; c < 303; ++c) EXPECT_EQ(begin[c], 0.0f);
      EXPECT_TRUE(std::all_of(begin, begin + 301 + r, [](float w) { return w > 0.0f; }));
    }
  }
}

TEST_P(Step, PaddingIsInert) {
  const std::vector<int32_t> tokens = random_tokens(11, 9);
  std::vector<std::vector<float>> results;
  for (const int64_t bucket : {1, 8, 64}) {
    Session session(*model_, backend_, {.sequences = 1, .entries = 64, .row_bucket = bucket});
    results.push_back(feed(session, session.cache().create(), tokens));
    EXPECT_EQ(session.statistics().rows, 9);
  }
  EXPECT_EQ(results[1], results[0]);
  EXPECT_EQ(results[2], results[0]);
}

TEST_P(Step, CachesAreOfTheTypeThatTheBackendNames) {
  for (const WeightType weights : {WeightType::kF32, WeightType::kBF16, WeightType::kQ8_0}) {
    const auto model = make_toy_llama(*backend_, 3, {.dim = 32, .heads = 4, .kv_heads = 2}, weights);
    Session session(*model, backend_, {.sequences = 1, .entries = 64});
    const bool is_f32 = weights == WeightType::kF32 ||
                        (weights == WeightType::kQ8_0 && backend_->info().name.starts_with("cuda"));
    EXPECT_EQ(session.cache().plane(0).type, is_f32 ? CacheType::kF32 : CacheType::kBF16)
        << weight_type_name(weights);
  }
}

TEST_P(Step, RepeatedStepsAllocateNothing) {
  Session session(*model_, backend_, {.sequences = 2, .entries = 256});
  const SequenceId id = session.cache().create();
  feed(session, id, random_tokens(12, 3));
  feed(session, id, random_tokens(13, 1));
  const int64_t bytes = backend_->allocated_bytes();
  feed(session, id, random_tokens(14, 200));
  EXPECT_EQ(backend_->allocated_bytes(), bytes);
}

TEST_P(Step, RefusedStepsNameTheField) {
  Session session(*model_, backend_, {.sequences = 2, .entries = 64});
  const SequenceId id = session.cache().create();
  const SequenceStep good{.sequence = id, .rows = {{.token = 1}, {.token = 2, .position = {1}}}};
  const auto refused = [&](auto&& change) {
    SequenceStep step = good;
    change(step);
    return error_of([&] { session.step({&step, 1}); });
  };
  const std::string head = "step: sequence 0: ";
  const std::string tail = " (model llama)";
  EXPECT_EQ(refused([](SequenceStep& s) { s.rows.clear(); }), head + "rows: there are none" + tail);
  EXPECT_EQ(refused([](SequenceStep& s) { s.rows[0].token = 16; }),
            head + "rows: token 16 is not in 0 .. 15" + tail);
  EXPECT_EQ(refused([](SequenceStep& s) { s.rows[1].kind = RowKind::kQuery; }),
            head + "rows: the model takes no query rows" + tail);
  EXPECT_EQ(refused([](SequenceStep& s) { s.rows[1].position[0] = -1; }),
            head + "rows: position -1 is not in 0 .. 2047" + tail);
  EXPECT_EQ(refused([](SequenceStep& s) { s.embeddings = {1.0f}; }),
            head + "embeddings: 1 values for 0 rows of 32" + tail);
  EXPECT_EQ(refused([](SequenceStep& s) { s.visibility.kind = MaskKind::kFull; }),
            head + "visibility: the model cannot run a full mask" + tail);
  EXPECT_EQ(refused([](SequenceStep& s) {
              s.visibility = {.kind = MaskKind::kTree, .parents = {-1, 1}};
            }),
            head + "visibility: parent 1 of row 1 does not precede it" + tail);
  EXPECT_EQ(refused([](SequenceStep& s) { s.visibility = {.kind = MaskKind::kBits, .bits = {1}}; }),
            head + "visibility: 1 bits for 2 rows" + tail);
  EXPECT_EQ(refused([](SequenceStep& s) { s.write = CacheWrite::kReplace; }),
            head + "replaced: 0 entries for 2 rows" + tail);
  EXPECT_EQ(refused([](SequenceStep& s) { s.replaced = {0}; }),
            head + "replaced: only a replacing step replaces entries" + tail);
  EXPECT_EQ(refused([](SequenceStep& s) { s.wanted.logits = {2}; }),
            head + "wanted: logits of row 2 of 2" + tail);
  EXPECT_EQ(refused([](SequenceStep& s) { s.wanted.hidden_layers = {2}; }),
            head + "wanted: layer 2 of 2" + tail);
  EXPECT_EQ(refused([](SequenceStep& s) { s.wanted.hidden_layers = {-2}; }),
            head + "wanted: layer -2 of 2" + tail);
  EXPECT_EQ(refused([](SequenceStep& s) { s.wanted.attention = {{.layer = 0, .head = 4}}; }),
            head + "wanted: attention head 4 of 4" + tail);
  EXPECT_EQ(refused([](SequenceStep& s) { s.layers = {1, 0}; }), head + "layers: not increasing" + tail);
  EXPECT_EQ(refused([](SequenceStep& s) { s.memory = static_cast<SequenceId>(0); }),
            head + "memory: the model takes none" + tail);
  EXPECT_EQ(refused([](SequenceStep& s) { s.guidance = 3; }), head + "guidance: partner 3 of 1" + tail);
  EXPECT_EQ(refused([](SequenceStep& s) { s.sequence = SequenceId::kNone; }),
            head + "sequence: there is none" + tail);
  const std::vector<SequenceStep> twice{good, good};
  EXPECT_EQ(error_of([&] { session.step(twice); }),
            "step: sequence 1: sequence: it is in the step twice" + tail);
  session.step({&good, 1});  // and the good one runs
}

INSTANTIATE_TEST_SUITE_P(Backends, Step, testing::ValuesIn(devices_for_methods()),
                         [](const auto& test) { return test::device_name(test.param); });

}  // namespace
}  // namespace volley::test
