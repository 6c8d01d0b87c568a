#include "core/io/atomic_file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <string>
#include <thread>

#include "core/base/error.h"
#include "core/io/mapped_file.h"
#include "core/io/safetensors.h"
#include "tests/unit/io/temp_folder.h"

namespace volley::test {
namespace {

namespace fs = std::filesystem;

int64_t files_in(const TempFolder& folder) {
  return std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator());
}

std::string message_of(const auto& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(AtomicFile, ANewFileNeverReplacesOne) {
  const TempFolder folder;
  AtomicFile file(folder.file("a"));
  file.write("ours");
  write_text(folder.file("a"), "theirs");  // made meanwhile
  fs::create_symlink("nowhere", folder.file("b"));
  EXPECT_FALSE(file.commit_new(folder.file("a")));
  EXPECT_FALSE(file.commit_new(folder.file("b"))) << "a link that leads nowhere is a name that is taken";
  EXPECT_TRUE(file.commit_new(folder.file("c")));
  EXPECT_EQ(read_text(folder.file("a")), "theirs");
  EXPECT_EQ(read_text(folder.file("c")), "ours");
  EXPECT_EQ(files_in(folder), 3) << "no temporary file is left";
}

TEST(AtomicFile, OfManyOneGetsTheName) {
  const TempFolder folder;
  std::vector<std::thread> writers;
  std::atomic<int> winners{0};
  for (int i = 0; i < 8; ++i) {
    writers.emplace_back([&, i] {
      AtomicFile file(folder.file("name"));
      file.write(std::to_string(i));
      winners += file.commit_new(folder.file("name"));
    });
  }
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(winners, 1);
  EXPECT_EQ(files_in(folder), 1);
}

TEST(AtomicFile, NameAppearsWithCommit) {
  const TempFolder folder;
  AtomicFile file(folder.file("out.bin"));
  file.write("abc");
  file.write("def");
  EXPECT_FALSE(fs::exists(folder.file("out.bin")));
  file.commit();
  EXPECT_EQ(read_text(folder.file("out.bin")), "abcdef");
  EXPECT_EQ(files_in(folder), 1);
}

TEST(AtomicFile, OldContentsStayWithoutCommit) {
  const TempFolder folder;
  write_text(folder.file("out.bin"), "old");
  {
    AtomicFile file(folder.file("out.bin"));
    file.write("new");
    EXPECT_EQ(files_in(folder), 2);
  }
  EXPECT_EQ(read_text(folder.file("out.bin")), "old");
  EXPECT_EQ(files_in(folder), 1);
  AtomicFile file(folder.file("out.bin"));
  file.write("new");
  file.commit();
  EXPECT_EQ(read_text(folder.file("out.bin")), "new");
  EXPECT_EQ(files_in(folder), 1);
}

TEST(AtomicFile, PermissionsFollowTheUmask) {
  const TempFolder folder;
  const mode_t before = ::umask(027);
  AtomicFile file(folder.file("out.bin"));
  file.commit();
  ::umask(before);
  EXPECT_EQ(fs::status(folder.file("out.bin")).permissions(), fs::perms{0640});
}

TEST(AtomicFile, LongestNameCanBeWritten) {
  const TempFolder folder;
  AtomicFile file(folder.file(std::string(255, 'n')));
  file.commit();
  EXPECT_EQ(files_in(folder), 1);
}

TEST(AtomicFile, RelativeNameWithoutFolder) {
  const TempFolder folder;
  const fs::path before = fs::current_path();
  fs::current_path(folder.path());
  AtomicFile file("out.bin");
  file.write("x");
  file.commit();
  fs::current_path(before);
  EXPECT_EQ(read_text(folder.file("out.bin")), "x");
}

TEST(AtomicFile, ErrorsNameThePath) {
  const TempFolder folder;
  const std::string lost = folder.file("none/out.bin");
  EXPECT_EQ(message_of([&] { AtomicFile file(lost); }), lost + ": cannot create: No such file or directory");
  const std::string taken = folder.path().string();
  EXPECT_EQ(message_of([&] { AtomicFile file(taken); }),
            taken + ": is a directory, expected a file name to write");
  const std::string full = "/dev/full";
  EXPECT_EQ(message_of([&] { AtomicFile(full).write("x"); }),
            full + ": cannot write: No space left on device");
}

TEST(AtomicFile, FolderThatAppearsMeanwhileIsAnErrorAndNothingStays) {
  const TempFolder folder;
  AtomicFile file(folder.file("out.bin"));
  fs::create_directory(folder.file("out.bin"));
  EXPECT_NE(message_of([&] { file.commit(); }).find("cannot rename"), std::string::npos);
  EXPECT_EQ(files_in(folder), 1);
}

TEST(AtomicFile, FullDiskLeavesNothingBehind) {
  const TempFolder folder;
  // A limit on the size of files stands in for the full disk.
  rlimit old_limit{};
  ::getrlimit(RLIMIT_FSIZE, &old_limit);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit limit{1024, old_limit.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &limit);
  const std::string text(4096, 'x');
  const std::string message = message_of([&] {
    AtomicFile file(folder.file("out.bin"));
    file.write(text);
    file.commit();
  });
  const std::vector<NamedTensor> tensors = {
      {"w", {reinterpret_cast<const std::byte*>(text.data()), DType::kU8, Shape{4096}}}};
  const std::string weights = message_of([&] { write_safetensors(folder.file("w.safetensors"), tensors); });
  ::setrlimit(RLIMIT_FSIZE, &old_limit);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_EQ(message, folder.file("out.bin") + ": cannot write: File too large");
  EXPECT_EQ(weights, folder.file("w.safetensors") + ": cannot write: File too large");
  EXPECT_EQ(files_in(folder), 0);
}

TEST(AtomicFile, DevicesAreWrittenDirectly) {
  AtomicFile file("/dev/null");
  file.write("x");
  file.commit();
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
}

TEST(AtomicFile, ThreadsDoNotMeet) {
  const TempFolder folder;
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) {
        AtomicFile file(folder.file("same.bin"));
        file.write(std::string(1000, 'x'));
        file.commit();
      }
    });
  }
  threads.clear();
  EXPECT_EQ(read_text(folder.file("same.bin")), std::string(1000, 'x'));
  EXPECT_EQ(files_in(folder), 1);
}

TEST(MappedFile, BytesOutliveAMove) {
  const TempFolder folder;
  MappedFile file = MappedFile::open(write_text(folder.file("a"), "hello")).value_or_throw("a");
  MappedFile moved = std::move(file);
  EXPECT_TRUE(file.bytes().empty());
  EXPECT_EQ(moved.bytes().size(), 5u);
  EXPECT_EQ(moved.bytes()[4], std::byte{'o'});
  MappedFile other = MappedFile::open(write_text(folder.file("b"), "xy")).value_or_throw("b");
  moved = std::move(other);
  EXPECT_EQ(moved.bytes().size(), 2u);
}

TEST(MappedFile, EmptyFile) {
  const TempFolder folder;
  EXPECT_TRUE(MappedFile::open(write_text(folder.file("a"), "")).value_or_throw("a").bytes().empty());
}

}  // namespace
}  // namespace volley::test
