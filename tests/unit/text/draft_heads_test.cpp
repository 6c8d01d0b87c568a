// Draft heads against plain loops, and what is refused of their files.
#include "text/draft_heads.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>

#include "core/backend/cpu/cpu_backend.h"
#include "core/base/error.h"
#include "core/decode/head_passes.h"
#include "core/io/safetensors.h"
#include "tests/support/devices.h"
#include "tests/support/toy_heads.h"
#include "tests/unit/io/temp_folder.h"
#include "tests/unit/text/message_of.h"
#include "tests/unit/text/toy_text_model.h"
#include "text/heads_checkpoint.h"
#include "text/text_job.h"

namespace volley::test {
namespace {

using text::HeadsFamily;
using text::message_of;
using text::ResidualHeads;

std::vector<float> values_of(const WeightSource& weights, const std::string& name) {
  const HostView* view = weights.find(name);
  if (view == nullptr) return {};
  std::vector<float> values(static_cast<size_t>(view->shape.size()));
  std::memcpy(values.data(), view->data, values.size() * 4);
  return values;
}

// W x + b by plain loops.
std::vector<double> product(const WeightSource& weights, const std::string& name,
                            const std::vector<double>& x) {
  const std::vector<float> w = values_of(weights, name + ".weight"), b = values_of(weights, name + ".bias");
  std::vector<double> out(w.size() / x.size());
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = b.empty() ? 0.0 : b[i];
    for (size_t j = 0; j < x.size(); ++j) out[i] += w[i * x.size() + j] * x[j];
  }
  return out;
}

double silu(double x) {
  return x / (1.0 + std::exp(-x));
}

constexpr int64_t kDim = 12, kVocab = 20;

// The published formulas.
std::vector<double> expected_logits(const WeightSource& weights, const ToyHeadsSizes& sizes, int64_t level,
                                    std::span<const float> hidden, std::span<const float> embedding,
                                    std::span<const int32_t> path) {
  const bool is_hydra = sizes.family == HeadsFamily::kHydra;
  const std::string head = (is_hydra ? "hydra_mlp." : "") + std::to_string(level) + ".";
  std::vector<double> x(hidden.begin(), hidden.end());
  if (is_hydra) {
    for (const int32_t token : path) {
      const auto row = embedding.subspan(static_cast<size_t>(token * kDim), kDim);
      x.insert(x.end(), row.begin(), row.end());
    }
  }
  for (int64_t l = 0; l < sizes.layers; ++l) {
    const std::string block = head + std::to_string(l);
    const std::vector<double> raised = product(weights, block + ".linear", x);
    std::vector<double> kept = is_hydra && l == 0 ? product(weights, block + ".res_connection", x) : x;
    for (size_t i = 0; i < kept.size(); ++i) kept[i] += silu(raised[i]);
    x = kept;
  }
  const std::string output =
      is_hydra ? "hydra_lm_head." + std::to_string(level) : head + std::to_string(sizes.layers);
  return product(weights, output, x);
}

class DraftHeadsTest : public testing::TestWithParam<std::string> {};

TEST_P(DraftHeadsTest, EqualThePublishedFormulas) {
  const auto backend = make_backend(GetParam(), 2);
  TestRandom random(4);
  const auto some = [&](int64_t count) {
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) value = random.normal();
    return values;
  };
  const std::vector<float> embedding = some(kVocab * kDim);
  MemoryWeights table;
  table.add("table", {kVocab, kDim}, embedding);
  table.finish();
  const Embedding embeddings =
      WeightLoader(table, *backend, WeightType::kF32).embedding("table", kVocab, kDim);
  for (const HeadsFamily family : {HeadsFamily::kMedusa, HeadsFamily::kHydra}) {
    for (const int64_t layers : {int64_t{1}, int64_t{3}}) {
      for (const bool is_reduced : {false, true}) {
        const ToyHeadsSizes sizes{
            .family = family,
            .heads = 3,
            .layers = layers,
            .dim = kDim,
            .vocab = kVocab,
            .target_ids = is_reduced ? std::vector<int32_t>{2, 3, 5, 8, 13, 19} : std::vector<int32_t>(),
            .spread = 0.4f};
        const MemoryWeights weights = toy_heads_weights(9, sizes);
        text::HeadsConfig config = text::recognise_heads(weights, kVocab);
        EXPECT_EQ(config.family, family);
        EXPECT_EQ(config.is_chained, family == HeadsFamily::kHydra);
        EXPECT_EQ(config.heads, 3);
        EXPECT_EQ(config.layers, layers);
        config.target_ids = sizes.target_ids;
        const ResidualHeads heads(config, {.vocab_size = kVocab, .dim = kDim, .embedding = &embeddings},
                                  WeightLoader(weights, *backend, WeightType::kF32));
        EXPECT_EQ(heads.traits().candidates(), is_reduced ? 6 : kVocab);
        constexpr int64_t kRows = 5, kPaths = 16;
        const std::vector<float> hidden = some(kRows * kDim);
        HeadPasses passes(heads, *backend);
        passes.begin(hidden);
        for (int64_t level = 0; level < 3; ++level) {
          std::vector<HeadPath> paths;
          for (int64_t n = 0; n < kPaths; ++n) {
            paths.push_back({.source = static_cast<int32_t>(random.below(kRows))});
            for (int64_t t = 0; t <= level; ++t)
              paths.back().tokens.push_back(static_cast<int32_t>(random.below(kVocab)));
          }
          const std::vector<float> together = passes.logits(level, paths);
          const auto width = static_cast<size_t>(heads.traits().candidates());
          ASSERT_EQ(together.size(), kPaths * width);
          for (size_t n = 0; n < kPaths; ++n) {
            const auto row = std::span(together).subspan(n * width, width);
            const auto source = std::span(hidden).subspan(static_cast<size_t>(paths[n].source) * kDim, kDim);
            const auto expected = expected_logits(weights, sizes, level, source, embedding, paths[n].tokens);
            ASSERT_EQ(expected.size(), width);
            for (size_t i = 0; i < width; ++i)
              EXPECT_NEAR(row[i], expected[i], 1e-4 * (1.0 + std::abs(expected[i]))) << level << ", " << n;
            // Company changes no bit.
            EXPECT_TRUE(std::ranges::equal(passes.logits(level, {&paths[n], 1}), row)) << level << ", " << n;
          }
        }
        EXPECT_EQ(passes.statistics().forwards, 3 * (1 + kPaths));
        EXPECT_EQ(passes.statistics().rows, 3 * (kPaths + kPaths));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, DraftHeadsTest, testing::ValuesIn(devices_for_methods()),
                         [](const auto& test) { return test::device_name(test.param); });

// Files of heads for the toy model.
class HeadsFiles : public testing::Test {
 protected:
  HeadsFiles() : model_(open_model()) {}

  text::TextModel open_model() {
    write_toy_text_folder(folder_.file("toy"));
    return {text::open_text_checkpoint(folder_.file("toy")), {.backend = make_cpu_backend(1)}};
  }
  ToyHeadsSizes sizes(HeadsFamily family) const {
    return {
        .family = family, .dim = 32, .vocab = model_.checkpoint().llama.config.vocab_size, .spread = 0.2f};
  }
  // Tensors of such heads; `change` may spoil them.
  struct Extra {
    std::string name;
    DType dtype = DType::kI64;
    std::vector<int64_t> values;
  };
  std::string write(const std::string& name, const MemoryWeights& weights,
                    const std::vector<Extra>& extra = {}, const std::string& left_out = "") const {
    std::vector<NamedTensor> tensors;
    for (const NamedTensor& tensor : weights.tensors()) {
      if (tensor.name != left_out) tensors.push_back(tensor);
    }
    for (const Extra& more : extra) {
      tensors.push_back({more.name,
                         {reinterpret_cast<const std::byte*>(more.values.data()),
                          more.dtype,
                          {std::ssize(more.values) * (more.dtype == DType::kI64 ? 1 : 2)}}});
    }
    const std::string path = folder_.file(name);
    write_safetensors(path, tensors);
    return path;
  }
  // What is said of a file that cannot be used.
  std::string fault_of(const std::string& path) const {
    return message_of([&] { text::TextHeads(text::open_heads(path, model_.checkpoint()), model_); });
  }

  TempFolder folder_;
  text::TextModel model_;
};

TEST_F(HeadsFiles, FilesAndFoldersOfBothKindsAreRead) {
  std::filesystem::create_directories(folder_.file("medusa"));
  std::filesystem::create_directories(folder_.file("hydra"));
  write_text(folder_.file("medusa/config.json"), R"({"medusa_num_heads": 3})");
  write("medusa/medusa_lm_head.safetensors", toy_heads_weights(1, sizes(HeadsFamily::kMedusa)));
  write("hydra/hydra_lm_head.safetensors", toy_heads_weights(1, sizes(HeadsFamily::kHydra)));
  for (const std::string name : {"medusa", "hydra"}) {
    const text::TextHeads folder(text::open_heads(folder_.file(name), model_.checkpoint()), model_,
                                 text::HashWeights::kYes);
    EXPECT_EQ(folder.name(), name);
    EXPECT_EQ(folder.heads().traits().family, name);
    EXPECT_EQ(folder.heads().traits().is_chained, name == "hydra");
    EXPECT_EQ(folder.weights_hash()->size(), 64u);
    const std::string file = folder_.file(name) + "/" + name + "_lm_head.safetensors";
    const text::TextHeads alone(text::open_heads(file, model_.checkpoint()), model_);
    EXPECT_EQ(alone.name(), name + "_lm_head");
    EXPECT_EQ(alone.heads().traits().heads, 3);
  }
  // Medusa's heads under the name that they have within a model.
  const MemoryWeights medusa = toy_heads_weights(1, sizes(HeadsFamily::kMedusa));
  std::vector<NamedTensor> tensors = medusa.tensors();
  for (NamedTensor& tensor : tensors) tensor.name = "medusa_head." + tensor.name;
  write_safetensors(folder_.file("within.safetensors"), tensors);
  EXPECT_EQ(text::TextHeads(text::open_heads(folder_.file("within.safetensors"), model_.checkpoint()), model_)
                .heads()
                .traits()
                .heads,
            3);
}

TEST_F(HeadsFiles, ReducedVocabulariesAreOffsets) {
  ToyHeadsSizes reduced = sizes(HeadsFamily::kMedusa);
  reduced.target_ids = {0, 3, 4, 9};
  const std::string path =
      write("reduced.safetensors", toy_heads_weights(1, reduced), {{.name = "d2t", .values = {0, 2, 2, 6}}});
  const text::TextHeads heads(text::open_heads(path, model_.checkpoint()), model_);
  EXPECT_EQ(heads.heads().traits().target_ids, reduced.target_ids);
  EXPECT_EQ(heads.heads().traits().candidates(), 4);
}

TEST_F(HeadsFiles, EachFaultIsOneLine) {
  const MemoryWeights good = toy_heads_weights(1, sizes(HeadsFamily::kMedusa));
  const MemoryWeights hydra = toy_heads_weights(1, sizes(HeadsFamily::kHydra));
  const auto vocab = std::to_string(model_.checkpoint().llama.config.vocab_size);
  const auto says = [&](const std::string& path, const std::string& fault) {
    EXPECT_EQ(fault_of(path), path + ": " + fault);
  };
  EXPECT_NE(fault_of(folder_.file("nothing")).find("nothing"), std::string::npos);
  says(folder_.file("toy") + "/model.safetensors",
       "holds no draft heads: expected tensor 0.0.linear.weight (Medusa) or hydra_mlp.0.0.linear.weight "
       "(Hydra)");
  says(write("a", good, {}, "1.0.linear.bias"), "tensor 1.0.linear.bias: missing, expected [32]");
  says(write("b", good, {}, "0.0.linear.bias"), "tensor 0.0.linear.bias: missing, expected [32]");
  // Heads behind a gap are nobody's.
  says(write("c", good, {}, "1.1.weight"),
       "tensor 1.0.linear.bias: the model has no such tensor (shape [32])");
  says(write("d", good, {}, "0.1.weight"), "tensor 0.1.weight: missing, expected [" + vocab + ", 32]");
  says(write("e", hydra, {}, "hydra_mlp.2.0.res_connection.weight"),
       "tensor hydra_mlp.2.0.res_connection.weight: missing, expected [32, 128]");
  says(write("f", hydra, {{.name = "prefix_embeding_layer.norm.weight", .values = {1}}}),
       "tensor prefix_embeding_layer.norm.weight: a layer before the heads (Hydra++) is not supported");
  says(write("g", good, {{.name = "more", .values = {1}}}),
       "tensor more: the model has no such tensor (shape [1])");
  ToyHeadsSizes other = sizes(HeadsFamily::kMedusa);
  other.dim = 64;
  says(write("h", toy_heads_weights(1, other)),
       "tensor 0.1.weight: reads rows of width 64, those of model toy have 32");
  other = sizes(HeadsFamily::kMedusa);
  other.vocab = 7;
  says(write("i", toy_heads_weights(1, other)),
       "tensor 0.1.weight: has 7 tokens, model toy " + vocab + "; tensor d2t would say which of them it has");
  const std::string huge = std::to_string(INT64_MAX);
  const MemoryWeights reduced = toy_heads_weights(1, [&] {
    ToyHeadsSizes few = sizes(HeadsFamily::kMedusa);
    few.target_ids = {0, 1, 2};
    return few;
  }());
  const auto offsets = [&](const std::string& name, std::vector<int64_t> values) {
    return write(name, reduced, {{.name = "d2t", .values = std::move(values)}});
  };
  const std::string rule = ": tokens must increase and be below " + vocab;
  says(offsets("j", {0, 1}), "tensor 0.1.weight: has 3 tokens, tensor d2t 2");
  says(offsets("k", {-1, 0, 0}), "tensor d2t: offset 0 is -1" + rule);
  says(offsets("l", {1, 0, 0}), "tensor d2t: offset 1 is 0" + rule);
  says(offsets("m", {0, 0, INT64_MAX}), "tensor d2t: offset 2 is " + huge + rule);
  says(offsets("n", {0, INT64_MIN, 0}), "tensor d2t: offset 1 is " + std::to_string(INT64_MIN) + rule);
  says(write("o", reduced, {{.name = "d2t", .dtype = DType::kI32, .values = {0, 0}}}),
       "tensor d2t: expected 64-bit integers, found i32");
  std::filesystem::create_directories(folder_.file("low"));
  write_text(folder_.file("low/config.json"), R"({"hidden_state_offset": 2})");
  write("low/hydra_lm_head.safetensors", hydra);
  EXPECT_EQ(fault_of(folder_.file("low")),
            folder_.file("low/config.json") +
                ": key 'hidden_state_offset': 2: heads on a layer below the last are not supported");
}

// The whole way: answers with heads are those without, greedy and sampled, in every storage.
TEST_F(HeadsFiles, AnswersAreSequentialDecodings) {
  for (const HeadsFamily family : {HeadsFamily::kMedusa, HeadsFamily::kHydra}) {
    const std::string path = write("heads.safetensors", toy_heads_weights(2, sizes(family)));
    for (const WeightType type : {WeightType::kF32, WeightType::kBF16, WeightType::kQ8_0}) {
      const text::TextModel model(text::open_text_checkpoint(folder_.file("toy")),
                                  {.backend = make_cpu_backend(1), .storage = type});
      const text::TextHeads heads(text::open_heads(path, model.checkpoint()), model);
      for (const double temperature : {0.0, 0.8}) {
        text::TextRequest request{.model = "toy", .heads = heads.name(), .max_tokens = 24};
        for (const char* prompt : {"Hello", "What is the sea?", "1 2 3 1 2 3"})
          request.prompts.push_back({.text = prompt, .seed = 3});
        request.temperature = temperature;
        request.check = text::Check::kYes;
        choose_decoder("heads:confidence=0,width=2", request);
        const text::TextResult result = run_text({.model = model, .heads = &heads}, request, {});
        EXPECT_EQ(result.checks.size(), 3u);
        EXPECT_TRUE(result.is_check_equal());
        EXPECT_GT(result.statistics.drafted_tokens, 0);
        EXPECT_GT(result.statistics.draft_forwards, 0);
        EXPECT_LE(result.statistics.draft_forwards, 3 * result.statistics.forwards);
        const nlohmann::json json = text::to_json(result);
        EXPECT_EQ(json["request"]["heads"], "heads");
        EXPECT_EQ(json["statistics"]["draft"]["forwards"], result.statistics.draft_forwards);
        EXPECT_EQ(text::to_json(text::read_text_result(json, "again")), json);
      }
    }
  }
}

TEST_F(HeadsFiles, TheDecoderAndItsHeadsGoTogether) {
  text::TextRequest request{.model = "toy", .prompts = {{.text = "Hello"}}};
  EXPECT_EQ(message_of([&] { choose_decoder("heads", request); }),
            "--decoder heads: needs draft heads; --heads names them");
  request.heads = "some";
  choose_decoder("auto", request);
  EXPECT_EQ(decoder_text(request.decoder),
            "heads:accept=coupled,alpha=0.09,confidence=0.25,copy=2,epsilon=0.3,further=3,heads=16,length="
            "adaptive,ngram=5,nodes=16,width=1");
  choose_decoder("auto", request, 2);
  EXPECT_EQ(request.decoder.options.at("heads"), "2");
  request.check = text::Check::kYes;
  EXPECT_EQ(message_of([&] { choose_decoder("heads:accept=typical", request); }),
            "--check: decoder heads is of class 'lossy' and promises no sequential tokens");
  request.check = text::Check::kNo;
  choose_decoder("heads:accept=typical", request);
  EXPECT_EQ(to_json(request)["decoder_class"], "lossy");
  choose_decoder("lookup", request);
  EXPECT_EQ(request.heads, "") << "they are not used";
  // A record whose decoder and heads do not fit each other.
  for (const bool has_heads : {true, false}) {
    request.heads = "some";
    choose_decoder(has_heads ? "lookup" : "heads", request);
    nlohmann::json json = to_json(request);
    json.erase("heads");
    if (has_heads) json["heads"] = "some";
    EXPECT_EQ(message_of([&] { text::read_text_request(JsonFields(json, "file"), "file"); }),
              std::string("file: key 'decoder': --decoder ") +
                  (has_heads ? "lookup: uses no heads" : "heads: has no heads"));
  }
}

}  // namespace
}  // namespace volley::test
