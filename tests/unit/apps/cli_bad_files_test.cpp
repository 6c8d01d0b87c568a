// The broken files of the readers' tests, given to the command: one line that names file and fault, no
// signal, nothing written.
#include "tests/support/sanitized.h"
#include "tests/unit/apps/cli_fixture.h"
#include "tests/unit/io/bad_files.h"

namespace volley::test {
namespace {

const std::set<std::string> kMissing{"missing", "folder_empty", "symlink_dangling", "below_a_file"};

class CliBadFiles : public Cli {
 protected:
  // A sanitized program takes seconds to start, and longer for what is broken by its size: it gets a part of
  // the files. BadFiles gives all of them to the readers.
  static std::vector<BadFile> files_for_the_command() {
    std::vector<BadFile> some;
    int64_t place = 0;
    for (BadFile& bad : bad_files()) {
      const bool is_large =
          bad.name.find("bomb") != std::string::npos || bad.name.find("huge") != std::string::npos;
      if (!kSanitized || (++place % 3 == 0 && !is_large)) some.push_back(std::move(bad));
    }
    return some;
  }
  void expect_one_line(const CommandResult& result, int exit_code, const std::string& file) {
    expect_failure(result, exit_code, file);
    EXPECT_EQ(result.error_lines().size(), 1u) << result.err;
    EXPECT_EQ(result.out, "");
    EXPECT_TRUE(files().empty());
  }
};

TEST_F(CliBadFiles, ModelsInfoNamesTheFault) {
  int count = 0;
  for (const BadFile& bad : files_for_the_command()) {
    if (bad.read != BadFile::Read::kWeights || bad.name.starts_with("torch_pickle_bomb")) continue;
    SCOPED_TRACE(bad.name);
    const TempFolder folder;
    const std::string file = bad.make(folder.path());
    const CommandResult result = volley({"models", "info", file});
    expect_one_line(result, kMissing.contains(bad.name) ? 4 : 1, file);
    EXPECT_NE(result.err.find(bad.expected), std::string::npos) << result.err;
    ++count;
  }
  EXPECT_GE(count, kSanitized ? 15 : 60);
}

TEST_F(CliBadFiles, AModelFolderWithABadWeightFileNamesIt) {
  int count = 0;
  const std::string inside = box_.file("toy/llamagen.safetensors");
  for (const BadFile& bad : files_for_the_command()) {
    if (bad.read != BadFile::Read::kWeights || bad.name.starts_with("torch_pickle_bomb")) continue;
    const TempFolder folder;
    const std::string file = bad.make(folder.path());
    std::error_code code;
    if (!std::filesystem::is_regular_file(file, code) || file.ends_with(".index.json")) continue;
    SCOPED_TRACE(bad.name);
    std::filesystem::copy_file(file, inside, std::filesystem::copy_options::overwrite_existing);
    expect_one_line(volley({"image", "-m", "toy", "--class", "animal-bird", "--decoder", "sequential"}), 1,
                    inside);
    ++count;
  }
  EXPECT_GE(count, kSanitized ? 15 : 60);
}

TEST_F(CliBadFiles, AModelFolderWithABadConfigNamesIt) {
  const std::string inside = box_.file("toy/config.json");
  for (const BadFile& bad : files_for_the_command()) {
    if (bad.read != BadFile::Read::kConfig) continue;
    const TempFolder folder;
    const std::string file = bad.make(folder.path());
    std::error_code code;
    if (!std::filesystem::is_regular_file(file, code)) continue;
    SCOPED_TRACE(bad.name);
    std::filesystem::copy_file(file, inside, std::filesystem::copy_options::overwrite_existing);
    expect_one_line(volley({"image", "-m", "toy", "--class", "animal-bird"}), 1, inside);
    expect_one_line(volley({"models", "info", "toy"}), 1, inside);
    json_of({"models", "list"}, "volley.models.1.json");
  }
}

TEST_F(CliBadFiles, WeightsThatDoNotFitTheConfigNameTheTensor) {
  const std::string config = box_.file("toy/config.json");
  const nlohmann::json good = read_json_file(config);
  const auto fails_with = [&](const char* pointer, nlohmann::json value, const std::string& part) {
    nlohmann::json changed = good;
    changed[nlohmann::json::json_pointer(pointer)] = std::move(value);
    write_text(config, changed.dump());
    const CommandResult result =
        volley({"image", "-m", "toy", "--class", "animal-bird", "--decoder", "sequential"});
    expect_one_line(result, 1, part);
  };
  fails_with("/llamagen/dim", 32,
             "llamagen.safetensors: tensor tok_embeddings.weight: expected shape [32, 32], found [32, 16]");
  fails_with("/llamagen/n_layer", 3, "llamagen.safetensors: tensor layers.2.");
  fails_with("/llamagen/n_layer", 1, "llamagen.safetensors: tensor layers.1.");
  fails_with("/llamagen/n_head", 3, "dim 16");
  fails_with("/llamagen/ffn_dim", 48,
             "toy/config.json: llamagen: ffn_dim: expected 32 as in " +
                 box_.file("toy/llamagen.safetensors") +
                 ", tensor layers.0.feed_forward.w1.weight; found 48");
  fails_with("/llamagen/ffn_dim", "wide", "toy/config.json: 'llamagen': key 'ffn_dim'");
  fails_with("/vq/ch", 64, "vq.safetensors: tensor ");
  fails_with("/vq/file", "llamagen.safetensors",
             "llamagen.safetensors: tensor quantize.embedding.weight: missing");
  write_text(config, good.dump());
  std::filesystem::remove(box_.file("toy/vq.safetensors"));
  expect_one_line(volley({"image", "-m", "toy", "--class", "animal-bird"}), 4,
                  "vq.safetensors: no such file");
}

}  // namespace
}  // namespace volley::test
