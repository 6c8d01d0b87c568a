// Files written by the reference implementations: torch.save and the official safetensors library.

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "core/io/json.h"
#include "core/io/open_weights.h"

namespace volley::test {
namespace {

namespace fs = std::filesystem;

// True if both hold the same tensors, byte for byte.
void expect_equal(const WeightSource& a, const WeightSource& b) {
  ASSERT_EQ(a.tensors().size(), b.tensors().size());
  for (size_t i = 0; i < a.tensors().size(); ++i) {
    const NamedTensor& left = a.tensors()[i];
    const NamedTensor& right = b.tensors()[i];
    SCOPED_TRACE(left.name);
    ASSERT_EQ(left.name, right.name);
    ASSERT_EQ(left.view.dtype, right.view.dtype);
    ASSERT_EQ(left.view.shape, right.view.shape);
    EXPECT_EQ(std::memcmp(left.view.data, right.view.data, static_cast<size_t>(left.view.bytes())), 0);
  }
}

struct Seen {
  int safetensors = 0;
  int pairs = 0;
};

// Opens every file of every case in a folder of cases.
Seen check_cases(const fs::path& root) {
  Seen seen;
  for (const fs::directory_entry& entry : fs::directory_iterator(root)) {
    if (!entry.is_directory()) continue;
    SCOPED_TRACE(entry.path().string());
    for (const fs::directory_entry& file : fs::directory_iterator(entry.path())) {
      if (file.path().extension() == ".json") read_json_file(file.path().string());
      if (file.path().extension() != ".safetensors") continue;
      EXPECT_FALSE(open_weights(file.path().string())->tensors().empty());
      ++seen.safetensors;
    }
    if (!fs::exists(entry.path() / "model.pt")) continue;
    expect_equal(*open_weights((entry.path() / "model.pt").string()), *open_weights(entry.path().string()));
    ++seen.pairs;
  }
  return seen;
}

TEST(Goldens, InTheTree) {
  const Seen seen = check_cases(VOLLEY_GOLDENS);
  EXPECT_GE(seen.safetensors, 1);
  EXPECT_GE(seen.pairs, 1);
}

TEST(Goldens, ModelNamesAndShapes) {
  const auto source = open_weights(std::string(VOLLEY_GOLDENS) + "/arpg/model.pt");
  const HostView* embeddings = source->find("embeddings.weight");
  ASSERT_NE(embeddings, nullptr);
  EXPECT_EQ(embeddings->shape, (Shape{141, 64}));
  EXPECT_EQ(embeddings->dtype, DType::kF32);
}

TEST(Goldens, BesideTheProject) {
  if (!fs::exists(VOLLEY_SHARED_GOLDENS)) GTEST_SKIP() << "no further goldens at " << VOLLEY_SHARED_GOLDENS;
  const Seen seen = check_cases(VOLLEY_SHARED_GOLDENS);
  EXPECT_GE(seen.safetensors, 20);
  EXPECT_GE(seen.pairs, 3);
}

}  // namespace
}  // namespace volley::test
