// The checker must fail where it should: a wrong value, a missing tensor, an unknown family.
#include "tests/goldens/golden_runner.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>

#include "core/base/error.h"
#include "core/io/open_weights.h"
#include "core/io/safetensors.h"

namespace volley::goldens {
namespace {

namespace fs = std::filesystem;

class GoldenRunner : public testing::Test {
 protected:
  void SetUp() override {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = fs::temp_directory_path() / ("volley_golden_runner_" + std::string(test->name()));
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    fs::copy(fs::path(VOLLEY_GOLDENS) / "smdm", case_folder());
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path case_folder() const { return folder_ / "smdm_7"; }
  int run(const fs::path& folder) const {
    return run_golden_check({"--backend", "cpu-reference", folder.string()});
  }

  // Adds `change` to one expected logit.
  void change_logit(float change) {
    const std::string path = (case_folder() / "io.safetensors").string();
    std::vector<std::byte> values;
    {
      const std::unique_ptr<WeightSource> io = open_weights(path);
      std::vector<NamedTensor> tensors = io->tensors();
      for (NamedTensor& tensor : tensors) {
        if (tensor.name != "logits") continue;
        values.assign(tensor.view.data, tensor.view.data + tensor.view.bytes());
        float value = 0.0f;
        std::memcpy(&value, values.data() + 400, sizeof(value));
        value += change;
        std::memcpy(values.data() + 400, &value, sizeof(value));
        tensor.view.data = values.data();
      }
      write_safetensors(path + ".new", tensors);
    }
    fs::rename(path + ".new", path);
  }

  fs::path folder_;
};

TEST_F(GoldenRunner, PassesACaseWhateverItsNumberAndSlashes) {
  EXPECT_EQ(run(case_folder()), 0);
  EXPECT_EQ(run(case_folder().string() + "/"), 0);
}

TEST_F(GoldenRunner, FindsCasesInAFolder) {
  EXPECT_EQ(run(folder_), 0);
}

TEST_F(GoldenRunner, FailsOnOneLogitBeyondTheTolerance) {
  change_logit(1e-3f);
  EXPECT_EQ(run(case_folder()), 1);
}

TEST_F(GoldenRunner, FailsOnALogitThatIsNotANumber) {
  change_logit(std::numeric_limits<float>::quiet_NaN());
  EXPECT_EQ(run(case_folder()), 1);
}

TEST_F(GoldenRunner, AllowsADifferenceWithinTheTolerance) {
  change_logit(2e-5f);
  EXPECT_EQ(run(case_folder()), 0);
}

TEST_F(GoldenRunner, FailsOnUnknownFamilies) {
  fs::rename(case_folder(), folder_ / "smdn");
  EXPECT_EQ(run(folder_ / "smdn"), 1);
  EXPECT_EQ(run(folder_), 1) << "a folder without cases of known families";
}

TEST_F(GoldenRunner, FailsOnBrokenFolders) {
  fs::resize_file(case_folder() / "model.safetensors", 1000);
  EXPECT_EQ(run(case_folder()), 1);
  fs::remove(case_folder() / "config.json");
  EXPECT_EQ(run(case_folder()), 1);
  EXPECT_EQ(run(folder_ / "nowhere"), 1);
}

TEST_F(GoldenRunner, FailsOnAConfigurationThatDoesNotFitTheWeights) {
  std::ofstream(case_folder() / "config.json")
      << R"({"padded_vocab_size": 192, "n_embd": 64, "n_layer": 2, "n_head": 4, "intermediate_size": 160})";
  EXPECT_EQ(run(case_folder()), 1);
}

TEST(GoldenRunnerFlags, RefusesWhatItDoesNotKnow) {
  EXPECT_THROW(run_golden_check({"--device", "cpu"}), Error);
  EXPECT_THROW(run_golden_check({}), Error);
  EXPECT_THROW(run_golden_check({"--backend", "gpu", "x"}), Error);
}

}  // namespace
}  // namespace volley::goldens
