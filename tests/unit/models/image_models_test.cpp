#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/base/error.h"
#include "core/decode/session.h"
#include "image/grid_transformer.h"
#include "tests/unit/models/random_models.h"

namespace volley::image {
namespace {

using test::RandomWeights;
using test::ShapesOnly;
using testing::HasSubstr;
using testing::ThrowsMessage;

std::vector<float> all_logits(const Session& session, int64_t count) {
  std::vector<float> logits;
  for (int64_t i = 0; i < count; ++i) {
    const std::vector<float> row = session.logits_on_host(i);
    logits.insert(logits.end(), row.begin(), row.end());
  }
  return logits;
}

// A checkpoint that lacks one tensor.
class Lacking : public WeightSource {
 public:
  Lacking(const WeightSource& whole, size_t lacking) : path_(whole.path()), tensors_(whole.tensors()) {
    tensors_.erase(tensors_.begin() + static_cast<std::ptrdiff_t>(lacking));
  }
  const std::vector<NamedTensor>& tensors() const override { return tensors_; }
  const std::string& path() const override { return path_; }

 private:
  std::string path_;
  std::vector<NamedTensor> tensors_;
};

// Each tensor in turn: what was loaded before the fault is given back, once.
template <typename Model, typename Config>
void expect_each_missing_tensor_is_named(const Config& config, const WeightSource& weights) {
  const auto backend = make_backend("cpu-reference", 1);
  for (size_t i = 0; i < weights.tensors().size(); ++i) {
    const Lacking lacking(weights, i);
    EXPECT_THAT([&] { Model(config, WeightLoader(lacking, *backend, WeightType::kF32)); },
                ThrowsMessage<Error>(HasSubstr(weights.tensors()[i].name)));
  }
}

// ---- The grid

TEST(GridTransformer, CountsCellsFromOneBehindTheConditions) {
  EXPECT_EQ(cell_position(0, 4), (std::array<int32_t, 3>{1, 1, 0}));
  EXPECT_EQ(cell_position(7, 4), (std::array<int32_t, 3>{2, 4, 0}));
  EXPECT_EQ(grid_side(576, "x"), 24);
  EXPECT_THAT([] { grid_side(250, "some.json"); },
              ThrowsMessage<Error>(HasSubstr("some.json: a grid of 250")));
}

ShapesOnly hidden_layer(int64_t dim, int64_t ffn) {
  return ShapesOnly({{"w1", {ffn, dim}}});
}

TEST(GridTransformer, KnowsThePublishedSizesOnly) {
  EXPECT_EQ(find_published_size(hidden_layer(3200, 8704), {.dim = 3200, .layers = 24, .w1 = "w1"}).heads, 32);
  EXPECT_EQ(find_published_size(hidden_layer(1280, 3584), {.dim = 1280, .layers = 36, .w1 = "w1"}).heads, 20);
  EXPECT_THAT([] { find_published_size(hidden_layer(1024, 2816), {.dim = 1024, .layers = 36, .w1 = "w1"}); },
              ThrowsMessage<Error>(HasSubstr("toy: 36 layers of width 1024")));
  EXPECT_THAT([] { find_published_size(hidden_layer(1024, 4096), {.dim = 1024, .layers = 24, .w1 = "w1"}); },
              ThrowsMessage<Error>(HasSubstr("toy: tensor w1: expected shape [2816, 1024]")));
}

// ---- LlamaGen

constexpr LlamaGenConfig kLlamaGen{.dim = 16,
                                   .n_layer = 2,
                                   .n_head = 2,
                                   .n_kv_head = 1,
                                   .vocab_size = 12,
                                   .block_size = 9,
                                   .grid_side = 3,
                                   .num_classes = 4};

TEST(LlamaGenModel, PlacesConditionsAtTheNullRowAndCodesOnTheGrid) {
  const auto backend = make_backend("cpu-reference", 1);
  const RandomWeights weights = test::llamagen_weights(kLlamaGen);
  const LlamaGen model(kLlamaGen, WeightLoader(weights, *backend, WeightType::kF32));
  EXPECT_EQ(model.position(0), (std::array<int32_t, 3>{0, 0, 0}));
  EXPECT_EQ(model.position(1), (std::array<int32_t, 3>{1, 1, 0}));
  EXPECT_EQ(model.position(6), (std::array<int32_t, 3>{2, 3, 0}));
  EXPECT_EQ(model.null_class_token(), 16);
  EXPECT_EQ(model.traits().token_rows, 17);
  EXPECT_EQ(model.traits().max_position, 4);
}

TEST(LlamaGenModel, RunsACodeTheSameBesideOthers) {
  const auto backend = make_backend("cpu-reference", 1);
  const RandomWeights weights = test::llamagen_weights(kLlamaGen);
  const LlamaGen model(kLlamaGen, WeightLoader(weights, *backend, WeightType::kF32));
  const auto run = [&](std::vector<int32_t> labels, int64_t bucket) {
    const auto count = static_cast<int64_t>(labels.size());
    Session session(model, backend, {.sequences = count, .entries = 16, .row_bucket = bucket});
    std::vector<SequenceStep> steps;
    for (int32_t label : labels) {
      SequenceStep step{.sequence = session.cache().create()};
      step.rows = {{.token = model.class_token(label), .position = model.position(0)},
                   {.token = label, .position = model.position(1)}};
      step.wanted.logits = {0, 1};
      steps.push_back(std::move(step));
    }
    session.step(steps);
    return all_logits(session, 2 * count);
  };
  const std::vector<float> alone = run({2}, 1), together = run({2, 3, 0}, 8);
  EXPECT_TRUE(std::equal(alone.begin(), alone.end(), together.begin()));
}

TEST(LlamaGenModel, RefusesConfigurationsThatCannotBe) {
  const auto parse = [](const char* text) { parse_llamagen_config(nlohmann::json::parse(text), "c.json"); };
  EXPECT_THAT([&] { parse(R"({"dim": 64, "n_layer": 2, "n_head": 4, "vocab_size": 8, "num_classes": 2})"); },
              ThrowsMessage<Error>(HasSubstr("block_size")));
  EXPECT_THAT(
      [&] {
        parse(
            R"({"dim": 64, "n_layer": 2, "n_head": 4, "vocab_size": 8, "num_classes": 2, "block_size": 15})");
      },
      ThrowsMessage<Error>(HasSubstr("15 cells")));
  EXPECT_THAT(
      [&] {
        parse(
            R"({"dim": 72, "n_layer": 2, "n_head": 4, "vocab_size": 8, "num_classes": 2, "block_size": 16})");
      },
      ThrowsMessage<Error>(HasSubstr("dim 72")));
  EXPECT_THAT([&] { parse(R"({"model_type": "i2i"})"); }, ThrowsMessage<Error>(HasSubstr("i2i")));
}

TEST(LlamaGenModel, NamesATensorThatIsMissingOrUnknown) {
  const auto backend = make_backend("cpu-reference", 1);
  LlamaGenConfig deeper = kLlamaGen;
  deeper.n_layer = 3;
  const RandomWeights weights = test::llamagen_weights(kLlamaGen), more = test::llamagen_weights(deeper);
  EXPECT_THAT([&] { LlamaGen(deeper, WeightLoader(weights, *backend, WeightType::kF32)); },
              ThrowsMessage<Error>(HasSubstr("layers.2.")));
  EXPECT_THAT([&] { LlamaGen(kLlamaGen, WeightLoader(more, *backend, WeightType::kF32)); },
              ThrowsMessage<Error>(HasSubstr("layers.2.")));
}

TEST(LlamaGenModel, NamesEachTensorThatIsMissing) {
  expect_each_missing_tensor_is_named<LlamaGen>(kLlamaGen, test::llamagen_weights(kLlamaGen));
}

// ---- ARPG

constexpr ArpgConfig kArpg{.dim = 16,
                           .n_layer = 4,
                           .n_head = 2,
                           .vocab_size = 12,
                           .num_classes = 3,
                           .block_size = 16,
                           .grid_side = 4};

TEST(ArpgModelFaults, NamesEachTensorThatIsMissing) {
  expect_each_missing_tensor_is_named<Arpg>(kArpg, test::arpg_weights(kArpg));
}

class ArpgModel : public testing::Test {
 protected:
  static StepRow content(const Arpg& model, int32_t token, int64_t index) {
    return {.token = token, .position = model.position(index)};
  }
  static StepRow query(const Arpg& model, int64_t index) {
    return {.kind = RowKind::kQuery, .position = model.position(index)};
  }
  // Logits of the given cells after the class and one code, in one step.
  std::vector<float> ask(std::vector<int64_t> cells, int64_t bucket) const {
    Session session(model_, backend_, {.entries = 16, .row_bucket = bucket});
    SequenceStep step{.sequence = session.cache().create(), .visibility = {.kind = MaskKind::kFull}};
    step.rows = {content(model_, model_.class_token(1), 0), content(model_, 7, 3)};
    for (int64_t cell : cells) {
      step.wanted.logits.push_back(static_cast<int32_t>(step.rows.size()));
      step.rows.push_back(query(model_, 1 + cell));
    }
    session.step({&step, 1});
    return all_logits(session, static_cast<int64_t>(cells.size()));
  }

  std::shared_ptr<const Backend> backend_ = make_backend("cpu-reference", 1);
  RandomWeights weights_ = test::arpg_weights(kArpg);
  Arpg model_{kArpg, WeightLoader(weights_, *backend_, WeightType::kF32)};
};

TEST_F(ArpgModel, QueriesDoNotSeeEachOtherNorPadding) {
  const std::vector<float> together = ask({5, 9, 14}, 1);
  EXPECT_EQ(together, ask({5, 9, 14}, 16));
  const std::vector<float> alone = ask({9}, 1);
  EXPECT_TRUE(std::equal(alone.begin(), alone.end(), together.begin() + 12));
  EXPECT_NE(alone, ask({10}, 1));
}

TEST_F(ArpgModel, CommittedContentIsSeenLikeTheStepsOwn) {
  Session session(model_, backend_, {.entries = 16});
  const SequenceId sequence = session.cache().create();
  SequenceStep known{.sequence = sequence, .visibility = {.kind = MaskKind::kFull}};
  known.rows = {content(model_, model_.class_token(1), 0), content(model_, 7, 3)};
  session.step({&known, 1});
  session.cache().commit_prefix(sequence, 2);
  SequenceStep asking{.sequence = sequence, .visibility = {.kind = MaskKind::kFull}};
  asking.rows = {query(model_, 1 + 9)};
  asking.wanted.logits = {0};
  session.step({&asking, 1});
  EXPECT_EQ(all_logits(session, 1), ask({9}, 1));
}

// More rows than are made at once, in guidance pairs and alone, of sequences with different numbers of rows.
TEST_F(ArpgModel, LogitsThatAreMadeInPartsChooseTheSame) {
  for (const char* device : {"cpu-reference", "cpu"}) {
    SCOPED_TRACE(device);
    const auto backend = make_backend(device, 2);
    const Arpg model(kArpg, WeightLoader(weights_, *backend, WeightType::kF32));
    constexpr int64_t kSequences = 160;
    Session session(model, backend, {.sequences = kSequences, .entries = 16});
    std::vector<SequenceId> sequences;
    for (int64_t i = 0; i < kSequences; ++i) sequences.push_back(session.cache().create());
    const auto choose = [&](LogitsUse use) {
      std::vector<SequenceStep> steps;
      for (int64_t i = 0; i < kSequences; ++i) {
        SequenceStep step{.sequence = sequences[static_cast<size_t>(i)],
                          .visibility = {.kind = MaskKind::kFull},
                          .write = CacheWrite::kNone};
        step.rows = {content(model, model.class_token(i / 2 % 3), 0),
                     content(model, static_cast<int32_t>(i % 7), 3)};
        for (int64_t cell = 0; cell < 8 + i / 2 % 5; ++cell) {
          step.wanted.logits.push_back(static_cast<int32_t>(step.rows.size()));
          step.rows.push_back(query(model, 1 + cell));
        }
        steps.push_back(std::move(step));
      }
      session.step(steps, use);
      std::vector<SampleRow> rows;
      for (int64_t pair = 0; pair < kSequences / 2; ++pair) {
        for (int64_t wanted = 0; wanted < 8 + pair % 5; ++wanted) {
          rows.push_back({.logits_row = session.logits_row(2 * pair, wanted),
                          .guidance_row = pair % 3 == 0 ? -1 : session.logits_row(2 * pair + 1, wanted),
                          .guidance_scale = 2.5f,
                          .seed = 5,
                          .stream = static_cast<uint32_t>(pair),
                          .position = static_cast<uint32_t>(wanted)});
        }
      }
      return session.sample(rows, {}, {.certainty = true, .distribution = true, .top = 2});
    };
    const Samples expected = choose(LogitsUse::kAny);
    ASSERT_GT(2 * expected.tokens.size(), 1500u);
    ASSERT_EQ(expected.probability.size(), expected.tokens.size());
    for (int repeat = 0; repeat < 2; ++repeat) {
      const Samples found = choose(LogitsUse::kSampled);
      EXPECT_EQ(found.tokens, expected.tokens);
      EXPECT_EQ(found.probability, expected.probability);
      EXPECT_EQ(found.entropy, expected.entropy);
      EXPECT_EQ(found.distribution, expected.distribution);
      EXPECT_EQ(found.top_tokens, expected.top_tokens);
      EXPECT_EQ(found.top_probability, expected.top_probability);
    }
    EXPECT_EQ(choose(LogitsUse::kAny).tokens, expected.tokens);
  }
}

TEST_F(ArpgModel, RefusesLogitsOfContentRows) {
  Session session(model_, backend_, {.entries = 16});
  SequenceStep step{.sequence = session.cache().create(), .visibility = {.kind = MaskKind::kFull}};
  step.rows = {content(model_, model_.class_token(1), 0), query(model_, 4)};
  step.wanted.logits = {1, 0};
  EXPECT_THAT(
      [&] {
        session.step({&step, 1});
      },
      ThrowsMessage<Error>(HasSubstr("wanted: logits of row 0: a token row has none")));
}

TEST_F(ArpgModel, RefusesACausalMask) {
  Session session(model_, backend_, {.entries = 16});
  SequenceStep step{.sequence = session.cache().create()};
  step.rows = {content(model_, model_.class_token(1), 0)};
  EXPECT_THAT([&] { session.step({&step, 1}); }, ThrowsMessage<Error>(HasSubstr("visibility")));
}

TEST(ArpgConfigs, RefuseAnOddNumberOfLayers) {
  EXPECT_THAT(
      [] {
        parse_arpg_config(
            nlohmann::json::parse(
                R"({"dim": 64, "n_layer": 3, "n_head": 4, "vocab_size": 8, "num_classes": 2, "block_size": 16})"),
            "c.json");
      },
      ThrowsMessage<Error>(HasSubstr("n_layer 3 is odd")));
}

// ---- VQ tokenizer

class VqTokenizer : public testing::Test {
 protected:
  struct Pictures {
    Shape grid;
    std::vector<int32_t> codes;
  };
  std::vector<float> decode(const Pictures& pictures) const {
    const std::unique_ptr<Queue> queue = backend_->make_queue();
    Arena arena(*backend_);
    const View<int32_t> codes = arena.indices(pictures.grid);
    const Tensor pixels = arena.tensor({pictures.grid[0], 3, pictures.grid[1] * 4, pictures.grid[2] * 4});
    queue->upload(pictures.codes.data(), codes.data, codes.size() * 4);
    model_.decode(*queue, arena, {.codes = codes, .pixels = pixels});
    std::vector<float> values(static_cast<size_t>(pixels.size()));
    queue->download(pixels.data, values.data(), pixels.size() * 4);
    return values;
  }

  VqConfig config_{.ch = 32,
                   .ch_mult = {1, 2, 1},
                   .z_channels = 16,
                   .codebook_size = 24,
                   .codebook_embed_dim = 6,
                   .num_res_blocks = 1};
  std::shared_ptr<const Backend> backend_ = make_backend("cpu-reference", 1);
  RandomWeights weights_ = test::vq_weights(config_);
  VqModel model_{config_, WeightLoader(weights_, *backend_, WeightType::kF32)};
};

TEST_F(VqTokenizer, DecodesAPictureTheSameBesideOthersOnAnyGrid) {
  const std::vector<float> together = decode({{2, 2, 3}, {0, 5, 7, 11, 13, 23, 4, 4, 4, 1, 2, 3}});
  const std::vector<float> second = decode({{1, 2, 3}, {4, 4, 4, 1, 2, 3}});
  EXPECT_TRUE(std::equal(second.begin(), second.end(), together.begin() + 3 * 8 * 12));
  const std::vector<float> turned = decode({{1, 3, 2}, {4, 4, 4, 1, 2, 3}});
  EXPECT_NE(second, turned);
}

TEST_F(VqTokenizer, GivesItsScratchMemoryBack) {
  const std::unique_ptr<Queue> queue = backend_->make_queue();
  Arena arena(*backend_);
  const Tensor pixels = arena.tensor({3, 3, 8, 12});
  const Tensor latents = arena.tensor({3, 6, 2, 3});
  const View<int32_t> codes = arena.indices({3, 2, 3});
  std::fill(pixels.data, pixels.data + pixels.size(), 0.25f);
  for (int64_t i = 0; i < pixels.size(); i += 7) pixels.data[i] = -0.5f;
  const Tensor before = arena.tensor({1});
  model_.encode(*queue, arena, {.pixels = pixels, .latents = latents, .codes = codes});
  model_.decode(*queue, arena, {.codes = codes, .pixels = pixels});
  EXPECT_EQ(arena.tensor({1}).data, before.data + 16);
  for (int64_t i = 0; i < codes.size(); ++i) {
    EXPECT_GE(codes.data[i], 0);
    EXPECT_LT(codes.data[i], 24);
  }
}

TEST_F(VqTokenizer, TellsItsSizesFromTensors) {
  const VqConfig inferred = infer_vq_config(weights_);
  EXPECT_EQ(inferred.ch, 32);
  EXPECT_EQ(inferred.ch_mult, (std::vector<int64_t>{1, 2, 1}));
  EXPECT_EQ(inferred.z_channels, 16);
  EXPECT_EQ(inferred.codebook_embed_dim, 6);
  EXPECT_EQ(inferred.num_res_blocks, 1);
  EXPECT_EQ(inferred.factor(), 4);
}

TEST(VqConfigs, RefuseChannelsThatNormsCannotGroup) {
  EXPECT_THAT(
      [] {
        parse_vq_config(
            nlohmann::json::parse(R"({"ch": 48, "ch_mult": [1, 2], "z_channels": 8, "codebook_size": 4,
                                                  "codebook_embed_dim": 4, "num_res_blocks": 1})"),
            "c.json");
      },
      ThrowsMessage<Error>(HasSubstr("48 channels")));
}

}  // namespace
}  // namespace volley::image
