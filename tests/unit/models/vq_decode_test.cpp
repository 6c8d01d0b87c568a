// Pictures that a VQ tokenizer decodes: the bits of each alone, on every device, recorded or not.
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>

#include "core/backend/backend.h"
#include "tests/unit/models/random_models.h"

namespace volley::image {
namespace {

const VqConfig kConfig{.ch = 32,
                       .ch_mult = {1, 2},
                       .z_channels = 16,
                       .codebook_size = 24,
                       .codebook_embed_dim = 6,
                       .num_res_blocks = 1};
struct Grid {
  int64_t height = 3;
  int64_t width = 4;

  int64_t area() const { return height * width; }
};

std::vector<int32_t> some_codes(int64_t pictures, uint64_t seed, Grid grid = {}) {
  test::TestRandom random(seed);
  std::vector<int32_t> codes(static_cast<size_t>(pictures * grid.area()));
  for (int32_t& code : codes) code = static_cast<int32_t>(random.below(kConfig.codebook_size));
  return codes;
}

// A queue with the memory of some pictures.
class Decoder {
 public:
  Decoder(const Backend& backend, int64_t pictures, Grid grid = {})
      : queue_(backend.make_queue()),
        arena_(backend),
        codes_(arena_.indices({pictures, grid.height, grid.width})),
        pixels_(arena_.tensor({pictures, 3, grid.height * kConfig.factor(), grid.width * kConfig.factor()})) {
  }

  std::vector<float> decode(const VqModel& model, std::span<const int32_t> codes) {
    queue_->upload(codes.data(), codes_.data, codes_.size() * 4);
    model.decode(*queue_, arena_, {.codes = codes_, .pixels = pixels_});
    std::vector<float> values(static_cast<size_t>(pixels_.size()));
    queue_->download(pixels_.data, values.data(), pixels_.size() * 4);
    return values;
  }

 private:
  std::unique_ptr<Queue> queue_;
  Arena arena_;
  View<int32_t> codes_;
  Tensor pixels_;
};

// Calls f(backend, type) for all devices in f32 and in bf16.
template <typename F>
void on_all_devices(const F& f) {
  for (const std::string& device : devices()) {
    const auto backend = make_backend(device, 2);
    for (const WeightType type : {WeightType::kF32, WeightType::kBF16}) {
      SCOPED_TRACE(device + " with " + std::string(weight_type_name(type)));
      f(*backend, type);
    }
  }
}

void expect_pictures_as_alone(const Backend& backend, WeightType type, int64_t pictures, Grid grid) {
  const test::RandomWeights weights = test::vq_weights(kConfig);
  const std::vector<int32_t> codes = some_codes(pictures, 1, grid);
  const VqModel model(kConfig, WeightLoader(weights, backend, type));
  const std::vector<float> together = Decoder(backend, pictures, grid).decode(model, codes);
  const auto area = static_cast<size_t>(grid.area()), size = together.size() / static_cast<size_t>(pictures);
  for (size_t n = 0; n < static_cast<size_t>(pictures); ++n) {
    const auto alone = Decoder(backend, 1, grid).decode(model, std::span(codes).subspan(n * area, area));
    EXPECT_TRUE(std::ranges::equal(alone, std::span(together).subspan(n * size, size))) << "picture " << n;
  }
}

TEST(VqDecoding, PicturesAreAsTheyWouldBeAlone) {
  constexpr int64_t kPictures = 17;  // more than are decoded together
  on_all_devices([&](const Backend& backend, WeightType type) {
    expect_pictures_as_alone(backend, type, kPictures, {});
  });
}

// Their codes are worked on together, what is made of them one by one.
TEST(VqDecoding, LargePicturesAreAsTheyWouldBeAlone) {
  for (const std::string& device : devices()) {
    if (device == "cpu-reference") continue;  // minutes of attention
    const auto backend = make_backend(device, 2);
    expect_pictures_as_alone(*backend, WeightType::kBF16, 3, {.height = 64, .width = 65});
  }
}

// A queue replays what it has recorded; the codes are those of the call, and the weights those of the model.
TEST(VqDecoding, RecordedOnesEqualFreshOnes) {
  constexpr int64_t kPictures = 2;
  const test::RandomWeights weights = test::vq_weights(kConfig), others = test::vq_weights(kConfig, 10);
  on_all_devices([&](const Backend& backend, WeightType type) {
    std::optional<VqModel> model(std::in_place, kConfig, WeightLoader(weights, backend, type));
    Decoder decoder(backend, kPictures);
    const auto expect_fresh_bits = [&](const VqModel& of) {
      for (uint64_t run = 0; run < 4; ++run) {
        const std::vector<int32_t> codes = some_codes(kPictures, run);
        EXPECT_EQ(decoder.decode(of, codes), Decoder(backend, kPictures).decode(of, codes)) << "run " << run;
      }
    };
    expect_fresh_bits(*model);
    // Another model where the first has been.
    const VqModel moved = std::move(*model);
    model.emplace(kConfig, WeightLoader(others, backend, type));
    expect_fresh_bits(*model);
    expect_fresh_bits(moved);
    EXPECT_NE(decoder.decode(*model, some_codes(kPictures, 0)),
              decoder.decode(moved, some_codes(kPictures, 0)));
  });
}

}  // namespace
}  // namespace volley::image
