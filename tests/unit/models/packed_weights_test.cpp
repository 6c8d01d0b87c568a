// Packed files: the model that is mapped from one gives the bits of the model that was packed at load.
#include "core/nn/packed_weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "core/base/error.h"
#include "core/decode/session.h"
#include "core/io/convert.h"
#include "core/io/open_weights.h"
#include "core/io/safetensors.h"
#include "tests/unit/io/temp_folder.h"
#include "tests/unit/models/random_models.h"

namespace volley::image {
namespace {

using test::RandomWeights;
using test::TempFolder;
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

// Wide enough for several groups of output features, with extents that fill none of them.
constexpr LlamaGenConfig kConfig{.dim = 96,
                                 .n_layer = 2,
                                 .n_head = 4,
                                 .n_kv_head = 4,
                                 .vocab_size = 50,
                                 .block_size = 9,
                                 .grid_side = 3,
                                 .num_classes = 4};

std::vector<float> logits_of(const LlamaGen& model, const std::shared_ptr<const Backend>& backend) {
  Session session(model, backend, {.sequences = 1, .entries = 16});
  SequenceStep step{.sequence = session.cache().create()};
  step.rows = {{.token = model.class_token(2), .position = model.position(0)},
               {.token = 7, .position = model.position(1)},
               {.token = 31, .position = model.position(2)}};
  step.wanted.logits = {0, 1, 2};
  session.step(std::span(&step, 1));
  std::vector<float> logits;
  for (int64_t i = 0; i < 3; ++i) {
    const std::vector<float> row = session.logits_on_host(i);
    logits.insert(logits.end(), row.begin(), row.end());
  }
  return logits;
}

class PackedWeights : public testing::TestWithParam<WeightType> {
 protected:
  // Packs the model into a file and returns its logits.
  std::vector<float> pack(const std::string& path) const {
    PackedWriter writer(*backend_);
    const LlamaGen model(kConfig, WeightLoader(weights_, *backend_, GetParam(), &writer));
    writer.write(path);
    return logits_of(model, backend_);
  }

  // Writes the tensors of `from` as `change` leaves them.
  template <typename Change>
  void rewrite(const std::string& from, const std::string& to, const Change& change) const {
    const auto source = open_weights(from);
    std::vector<NamedTensor> tensors = source->tensors();
    std::map<std::string, std::string> metadata = source->metadata();
    change(tensors, metadata);
    write_safetensors(to, tensors, metadata);
  }

  void load(const std::string& path, WeightType type) const {
    LlamaGen(kConfig, WeightLoader(*open_weights(path), *backend_, type));
  }

  TempFolder folder_;
  std::shared_ptr<const Backend> backend_ = make_backend("cpu", 2);
  RandomWeights weights_ = test::llamagen_weights(kConfig);
};

TEST_P(PackedWeights, GiveTheBitsOfPackingAtLoadAndAreUsedWhereTheyLie) {
  const std::string path = folder_.file("packed.safetensors");
  const std::vector<float> expected = pack(path);
  const auto own = make_backend("cpu", 2);
  std::unique_ptr<LlamaGen> model;
  {
    const auto source = open_weights(path);
    model = std::make_unique<LlamaGen>(kConfig, WeightLoader(*source, *own, GetParam()));
  }
  // Only norms, the embeddings and rotary tables are the backend's own memory.
  const int64_t table = (kConfig.vocab_size + kConfig.num_classes + 1) * kConfig.dim * 4;
  EXPECT_LT(own->allocated_bytes(), table + 16 * 1024);
  EXPECT_EQ(logits_of(*model, own), expected);  // the file's mapping outlives its reader
}

TEST_P(PackedWeights, ArePackedAgainToTheSameBytes) {
  const std::string first = folder_.file("first.safetensors"), second = folder_.file("second.safetensors");
  pack(first);
  PackedWriter writer(*backend_);
  LlamaGen(kConfig, WeightLoader(*open_weights(first), *backend_, GetParam(), &writer));
  writer.write(second);
  const auto a = MappedFile::open(first).value_or_throw(first),
             b = MappedFile::open(second).value_or_throw(second);
  EXPECT_TRUE(std::ranges::equal(a.bytes(), b.bytes()));
}

TEST_P(PackedWeights, OfAnotherKindAreRefused) {
  const std::string path = folder_.file("packed.safetensors"), broken = folder_.file("broken.safetensors");
  pack(path);
  const WeightType other = GetParam() == WeightType::kBF16 ? WeightType::kQ8_0 : WeightType::kBF16;
  const std::string fault = "packed as " + std::string(weight_type_name(GetParam())) + ", asked for " +
                            std::string(weight_type_name(other));
  EXPECT_THAT([&] { load(path, other); },
              ThrowsMessage<Error>(AllOf(HasSubstr("packed.safetensors: tensor "), HasSubstr(fault))));
  rewrite(path, broken, [](auto&, auto& metadata) { metadata[std::string(kPackedLayoutKey)] = "cpu/0"; });
  EXPECT_THAT([&] { load(broken, GetParam()); }, ThrowsMessage<Error>(HasSubstr("cpu/0")));
  rewrite(path, broken, [](auto&, auto& metadata) { metadata.clear(); });
  EXPECT_THAT([&] { load(broken, GetParam()); }, ThrowsMessage<Error>(HasSubstr("no layout stated")));
}

TEST_P(PackedWeights, ThatAreDamagedAreRefusedByName) {
  const std::string path = folder_.file("packed.safetensors"), broken = folder_.file("broken.safetensors");
  pack(path);
  const std::string name = "layers.1.feed_forward.w2.weight";
  const std::string panels = name + "." + std::string(weight_type_name(GetParam())) + "_panels";
  const auto find = [](std::vector<NamedTensor>& tensors, const std::string& wanted) {
    return std::ranges::find(tensors, wanted, &NamedTensor::name);
  };
  rewrite(path, broken, [&](auto& tensors, auto&) { tensors.erase(find(tensors, panels)); });
  EXPECT_THAT([&] { load(broken, GetParam()); },
              ThrowsMessage<Error>(AllOf(HasSubstr(name), HasSubstr("missing"))));
  rewrite(path, broken, [&](auto& tensors, auto&) {
    HostView& view = find(tensors, panels)->view;
    view.shape = {view.shape[0], view.shape[1] / 2, view.shape[2]};
  });
  EXPECT_THAT([&] { load(broken, GetParam()); },
              ThrowsMessage<Error>(AllOf(HasSubstr(name), HasSubstr("panels: expected"))));
  const std::array<int64_t, 2> lie{int64_t{1} << 40, -1};
  rewrite(path, broken, [&](auto& tensors, auto&) {
    find(tensors, name + ".packed_shape")->view.data = reinterpret_cast<const std::byte*>(lie.data());
  });
  EXPECT_THAT([&] { load(broken, GetParam()); }, ThrowsMessage<Error>(HasSubstr("impossible extents")));
}

INSTANTIATE_TEST_SUITE_P(Types, PackedWeights,
                         testing::Values(WeightType::kBF16, WeightType::kQ8_0, WeightType::kQ4_1),
                         [](const auto& type) { return std::string(weight_type_name(type.param)); });

TEST(PackedConvolutions, GiveTheBitsOfPackingAtLoad) {
  const VqConfig config{.ch = 32,
                        .ch_mult = {1, 2},
                        .z_channels = 16,
                        .codebook_size = 24,
                        .codebook_embed_dim = 6,
                        .num_res_blocks = 1};
  const TempFolder folder;
  const auto backend = make_backend("cpu", 2);
  const RandomWeights weights = test::vq_weights(config);
  PackedWriter writer(*backend);
  const VqModel packed(config, WeightLoader(weights, *backend, WeightType::kBF16, &writer));
  writer.write(folder.file("vq.safetensors"));
  const VqModel mapped(
      config, WeightLoader(*open_weights(folder.file("vq.safetensors")), *backend, WeightType::kBF16));
  const auto decode = [&](const VqModel& model) {
    const auto queue = backend->make_queue();
    Arena arena(*backend);
    const View<int32_t> codes = arena.indices({1, 3, 2});
    const Tensor pixels = arena.tensor({1, 3, 6, 4});
    std::ranges::copy(std::array{1, 5, 23, 0, 9, 9}, codes.data);
    model.decode(*queue, arena, {.codes = codes, .pixels = pixels});
    return std::vector<float>(pixels.data, pixels.data + pixels.size());
  };
  EXPECT_EQ(decode(mapped), decode(packed));
}

// q8_0 planes of a checkpoint are not rounded a second time: the values they stand for are what is
// multiplied.
TEST(QuantizedPlanes, AreUsedAsTheyAre) {
  const int64_t out = 40, in = 96;
  std::vector<int8_t> quants;
  std::vector<uint16_t> scales;
  test::TestRandom random(3);
  // Blocks whose greatest quant is not 127, which quantising anew would change.
  for (int64_t i = 0; i < out * in; ++i) quants.push_back(static_cast<int8_t>(random.below(101) - 50));
  for (int64_t i = 0; i < out * in / 32; ++i) scales.push_back(f32_to_f16(0.01f + 0.01f * random.uniform()));
  const HostView quant_view{reinterpret_cast<const std::byte*>(quants.data()), DType::kI8, {out, in}};
  const HostView scale_view{reinterpret_cast<const std::byte*>(scales.data()), DType::kF16, {out, in / 32}};
  const auto backend = make_backend("cpu", 2);
  const LinearWeight weight = backend->pack_quantized(quant_view, scale_view);
  const std::vector<float> values = dequantize_q8_0(quant_view, scale_view);
  // A row of ones is its own quantisation (127 times 1/127), so products are sums of the values.
  const std::vector<float> ones(in, 1.0f);
  std::vector<float> sums(out);
  backend->make_queue()->linear(
      {.x = {ones.data(), {1, in}}, .weight = weight, .bias = {}, .out = {sums.data(), {1, out}}});
  for (int64_t n = 0; n < out; ++n) {
    double expected = 0.0;
    for (int64_t k = 0; k < in; ++k) expected += values[n * in + k];
    EXPECT_NEAR(sums[n], expected, 1e-5) << n;
  }
}

}  // namespace
}  // namespace volley::image
