// Every broken file gives one line that names its fault.

#include "tests/unit/io/bad_files.h"

#include <gtest/gtest.h>

#include <set>

#include "core/base/error.h"
#include "core/io/json.h"
#include "core/io/open_weights.h"
#include "core/io/untrusted_text.h"
#include "tests/unit/io/temp_folder.h"

namespace volley::test {
namespace {

TEST(BadFiles, EachGivesOneLineThatNamesTheFault) {
  const std::vector<BadFile> all = bad_files();
  EXPECT_GE(all.size(), 200u);
  std::set<std::string> names;
  for (const BadFile& bad : all) {
    SCOPED_TRACE(bad.name);
    EXPECT_TRUE(names.insert(bad.name).second);
    const TempFolder folder;
    const std::string path = bad.make(folder.path());
    try {
      if (bad.read == BadFile::Read::kWeights) {
        open_weights(path);
      } else {
        read_json_file(path);
      }
      ADD_FAILURE() << "was accepted";
    } catch (const Error& error) {
      const std::string message = error.what();
      EXPECT_NE(message.find(bad.expected), std::string::npos)
          << "message:  " << message << "\nexpected: " << bad.expected;
      EXPECT_EQ(message.find('\n'), std::string::npos) << message;
      EXPECT_TRUE(message.starts_with(path)) << message;
      EXPECT_LE(message.size(), path.size() + 600);
      EXPECT_EQ(printable(message, message.size() + 1), message) << "unfit for a terminal";
    }
  }
}

TEST(BadFiles, TheUnbrokenOnesOpen) {
  // What the cases above are made from, so that none fails for a reason all share.
  for (const BadFile& bad : bad_files()) {
    if (bad.name != "shards_lacks_tensor") continue;
    const TempFolder folder;
    bad.make(folder.path());
    write_text(folder.file("model.safetensors.index.json"), R"({"weight_map":{"a":"one.safetensors"}})");
    EXPECT_EQ(open_weights(folder.path().string())->tensors().size(), 1u);
    EXPECT_EQ(open_weights(folder.file("one.safetensors"))->tensors().size(), 2u);
  }
}

TEST(BadFiles, OnlyWhatIsMissingIsAMissingModel) {
  for (const BadFile& bad : bad_files()) {
    if (bad.read != BadFile::Read::kWeights) continue;
    SCOPED_TRACE(bad.name);
    const std::set<std::string> missing = {"missing", "folder_empty", "symlink_dangling", "below_a_file"};
    if (bad.name.starts_with("torch_pickle_bomb")) continue;  // slow, and told by the test above
    const TempFolder folder;
    try {
      open_weights(bad.make(folder.path()));
    } catch (const Error& error) {
      EXPECT_EQ(error.kind() == ErrorKind::kModelMissing, missing.contains(bad.name));
    }
  }
}

}  // namespace
}  // namespace volley::test
