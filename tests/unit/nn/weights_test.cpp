#include "core/nn/weights.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "core/backend/cpu/cpu_backend.h"
#include "core/backend/cpu/reference/reference_backend.h"
#include "core/base/error.h"
#include "core/io/byte_reader.h"
#include "core/io/convert.h"
#include "tests/support/random_blocks.h"
#include "tests/unit/io/file_builders.h"

namespace volley::test {
namespace {

constexpr DType kBlockTypes[] = {DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                                 DType::kQ8_0, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};

class Tensors : public WeightSource {
 public:
  explicit Tensors(const HostView& view) : Tensors(std::vector<NamedTensor>{{"w", view}}) {}
  explicit Tensors(std::vector<NamedTensor> tensors) : tensors_(std::move(tensors)) {}
  const std::vector<NamedTensor>& tensors() const override { return tensors_; }
  const std::string& path() const override { return path_; }

 private:
  std::vector<NamedTensor> tensors_;
  std::string path_ = "one";
};

// A weight of random blocks, and the floats it stands for.
struct BlockWeight {
  explicit BlockWeight(DType type)
      : width(dtype_block(type).values == 256 ? 768 : 544),
        bytes(random_blocks(type, kRows * width)),
        view{as_bytes(bytes).data() + 1, type, {kRows, width}},
        values(to_f32(view)),
        blocks(view),
        floats({std::as_bytes(std::span(values)).data(), DType::kF32, view.shape}) {}

  static constexpr int64_t kRows = 19;
  int64_t width;
  std::string bytes;
  HostView view;
  std::vector<float> values;
  Tensors blocks, floats;
};

std::string bytes_of(const Buffer& buffer) {
  return std::string(as_text({buffer.data(), static_cast<size_t>(buffer.bytes())}));
}

void expect_same(const LinearWeight& a, const LinearWeight& b) {
  EXPECT_EQ(a.type, b.type);
  EXPECT_EQ(a.out_features, b.out_features);
  EXPECT_EQ(a.in_features, b.in_features);
  EXPECT_EQ(bytes_of(a.data), bytes_of(b.data));
  EXPECT_EQ(bytes_of(a.scales), bytes_of(b.scales));
}

std::vector<std::shared_ptr<const Backend>> backends() {
  return {make_cpu_backend(2), make_reference_backend()};
}

// A weight of blocks is packed as the floats it stands for, but q8_0 of integers, which is not rounded again.
TEST(WeightLoader, BlocksArePackedAsTheirFloats) {
  for (const DType type : kBlockTypes) {
    SCOPED_TRACE(dtype_name(type));
    const BlockWeight weight(type);
    const int64_t rows = BlockWeight::kRows, width = weight.width;
    const HostView& view = weight.view;
    const Tensors &blocks = weight.blocks, &plain = weight.floats;
    ASSERT_EQ(first_non_finite(view), -1);
    for (const auto& backend : backends()) {
      for (const WeightType storage : {WeightType::kF32, WeightType::kBF16, WeightType::kQ8_0}) {
        if (storage == WeightType::kF32 && backend->info().name == "cpu") continue;  // a library's own layout
        if (storage == WeightType::kQ8_0 && q8_0_planes(view)) continue;
        SCOPED_TRACE(backend->info().name + " " + std::to_string(static_cast<int>(storage)));
        const WeightLoader::RowRange middle{.rows = rows, .begin = 3, .count = 11};
        expect_same(WeightLoader(blocks, *backend, storage).linear("w", rows, width),
                    WeightLoader(plain, *backend, storage).linear("w", rows, width));
        expect_same(WeightLoader(blocks, *backend, storage).linear_rows("w", middle, width),
                    WeightLoader(plain, *backend, storage).linear_rows("w", middle, width));
      }
      EXPECT_EQ(WeightLoader(blocks, *backend, WeightType::kF32).values("w", view.shape), weight.values);
    }
  }
}

TEST(WeightLoader, IntegerBlocksBecomeQ8AsTheyAre) {
  for (const DType type : {DType::kQ4_0, DType::kQ5_0, DType::kQ8_0}) {
    SCOPED_TRACE(dtype_name(type));
    const int64_t rows = 19, width = 544;
    const std::string bytes = random_blocks(type, rows * width);
    const Tensors blocks({as_bytes(bytes).data() + 1, type, {rows, width}});
    const auto planes = q8_0_planes(blocks.tensors()[0].view);
    for (const auto& backend : backends()) {
      expect_same(WeightLoader(blocks, *backend, WeightType::kQ8_0).linear("w", rows, width),
                  backend->pack_quantized(
                      {std::as_bytes(std::span(planes->quants)).data(), DType::kI8, {rows, width}},
                      {std::as_bytes(std::span(planes->scales)).data(), DType::kF16, {rows, width / 32}}));
    }
  }
}

// With blocks kept, 4 bits are q4_1, more bits are q8_0, floats are what was asked for; tables keep theirs,
// too.
TEST(WeightLoader, BlocksStayAsSmallAsTheyAre) {
  for (const DType type : kBlockTypes) {
    SCOPED_TRACE(dtype_name(type));
    const BlockWeight weight(type);
    const int64_t rows = BlockWeight::kRows, width = weight.width;
    const Tensors &blocks = weight.blocks, &floats = weight.floats;
    const bool is_small = type == DType::kQ4_0 || type == DType::kQ4_1 || type == DType::kQ4_K;
    const WeightType expected = is_small ? WeightType::kQ4_1 : WeightType::kQ8_0;
    for (const auto& backend : backends()) {
      const auto storage = WeightStorage::keeping_blocks(WeightType::kBF16);
      const LinearWeight kept = WeightLoader(blocks, *backend, storage).linear("w", rows, width);
      EXPECT_EQ(kept.type, expected);
      expect_same(kept, WeightLoader(blocks, *backend, expected).linear("w", rows, width));
      EXPECT_EQ(WeightLoader(floats, *backend, storage).linear("w", rows, width).type, WeightType::kBF16);
      const Embedding table = WeightLoader(blocks, *backend, storage).embedding("w", rows, width);
      EXPECT_EQ(table.width(), width);
      expect_same(table.packed, kept);
      EXPECT_FALSE(WeightLoader(blocks, *backend, WeightType::kQ8_0).embedding("w", rows, width).is_packed());
      EXPECT_FALSE(WeightLoader(floats, *backend, storage).embedding("w", rows, width).is_packed());
    }
  }
}

TEST(WeightLoader, BlocksThatAreNotFiniteAreNamed) {
  std::string bytes = random_blocks(DType::kQ8_0, 2 * 64);
  bytes.replace(1 + 3 * 34, 2, raw<uint16_t>(0x7c00));
  bytes.replace(1 + 3 * 34 + 2, 2, "\1\1");
  const Tensors source({as_bytes(bytes).data() + 1, DType::kQ8_0, {2, 64}});
  for (const auto& backend : backends()) {
    for (const WeightType storage :
         {WeightType::kF32, WeightType::kBF16, WeightType::kQ8_0, WeightType::kQ4_1}) {
      try {
        WeightLoader(source, *backend, storage).linear("w", 2, 64);
        ADD_FAILURE() << "was accepted";
      } catch (const Error& error) {
        const std::string message = error.what();
        EXPECT_TRUE(message.starts_with("one: tensor w: ")) << message;
        EXPECT_TRUE(message.find("infinite") != std::string::npos ||
                    message.find("not finite") != std::string::npos)
            << message;
      }
    }
  }
}

// Tables that lie as the device keeps them, or as others do.
TEST(WeightLoader, TablesAreJoinedOneBehindTheOther) {
  const std::vector<float> first{1, -2, 3, -4, 5, -6};
  const std::vector<uint16_t> second{0x3f80, 0xc000};  // 1 and -2 in bf16
  const HostView floats{std::as_bytes(std::span(first)).data(), DType::kF32, {3, 2}};
  const HostView halves{std::as_bytes(std::span(second)).data(), DType::kBF16, {1, 2}};
  const Tensors source(std::vector<NamedTensor>{{"a", floats}, {"b", halves}});
  const std::vector<WeightLoader::Table> tables{{.name = "a", .rows = 3}, {.name = "b", .rows = 1}};
  for (const auto& backend : backends()) {
    WeightLoader loader(source, *backend, WeightType::kF32);
    const Weight joined = loader.joined_tables(tables, 2);
    EXPECT_EQ(joined.shape, Shape({4, 2}));
    const auto* values = reinterpret_cast<const float*>(joined.buffer.data());
    EXPECT_EQ(std::vector<float>(values, values + 8), (std::vector<float>{1, -2, 3, -4, 5, -6, 1, -2}));
    loader.finish();
  }
}

TEST(WeightLoader, TablesThatAreNotFiniteAreNamed) {
  const std::vector<float> values{1, 2, std::numeric_limits<float>::quiet_NaN(), 4};
  const Tensors source(HostView{std::as_bytes(std::span(values)).data(), DType::kF32, {2, 2}});
  try {
    WeightLoader(source, *make_cpu_backend(1), WeightType::kF32).tensor("w", {2, 2});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()), "one: tensor w: value 2 is NaN");
  }
}

}  // namespace
}  // namespace volley::test
