// What reaches the disk when: the system's calls are watched, as no test can cut the power.
#include "core/io/disk_sync.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <functional>
#include <string>
#include <system_error>
#include <vector>

#include "core/base/error.h"
#include "core/io/atomic_file.h"
#include "tests/unit/io/temp_folder.h"

namespace volley::test {
namespace {

// Asked at each sync of this thread for the errno that it fails with.
thread_local std::function<int(const char* call, int descriptor)> on_sync;

int watched(const char* call, int descriptor, long number) {
  const int code = on_sync ? on_sync(call, descriptor) : 0;
  if (code == 0) return static_cast<int>(::syscall(number, descriptor));
  errno = code;
  return -1;
}

}  // namespace
}  // namespace volley::test

// These stand before the system's own of the same names in this program.
extern "C" int fdatasync(int descriptor) {
  return volley::test::watched("fdatasync", descriptor, SYS_fdatasync);
}
extern "C" int fsync(int descriptor) {
  return volley::test::watched("fsync", descriptor, SYS_fsync);
}

namespace volley::test {
namespace {

namespace fs = std::filesystem;

class DiskSync : public testing::Test {
 protected:
  ~DiskSync() override { on_sync = nullptr; }

  // Notes what each sync finds under `path`.
  void watch(const std::string& path) {
    on_sync = [this, path](const char* call, int descriptor) {
      struct stat status {};
      EXPECT_EQ(::fstat(descriptor, &status), 0);
      seen_.push_back(
          std::string(call) +
          (S_ISDIR(status.st_mode) ? " folder" : " " + std::to_string(status.st_size) + " bytes") +
          ", name shows " + std::to_string(read_text(path).size()) + " bytes");
      return 0;
    };
  }

  TempFolder folder_;
  std::vector<std::string> seen_;
};

TEST_F(DiskSync, BytesComeBeforeTheName) {
  const std::string path = write_text(folder_.file("out.bin"), "old");
  watch(path);
  AtomicFile file(path);
  file.write("newer");
  EXPECT_TRUE(seen_.empty());
  file.commit();
  EXPECT_EQ(seen_, (std::vector<std::string>{"fdatasync 5 bytes, name shows 3 bytes"}));
}

TEST_F(DiskSync, TheNameOfALargeFileComesBeforeTheEnd) {
  const std::string path = write_text(folder_.file("out.bin"), "old");
  watch(path);
  AtomicFile file(path);
  for (int i = 0; i < 1024; ++i) file.write(std::string(1024, 'x'));
  file.commit();
  EXPECT_EQ(seen_, (std::vector<std::string>{"fdatasync 1048576 bytes, name shows 3 bytes",
                                             "fsync folder, name shows 1048576 bytes"}));
}

TEST_F(DiskSync, NewNamesLikewise) {
  const std::string path = folder_.file("out.bin");
  watch(path);
  AtomicFile file(write_text(folder_.file("taken"), "old"));
  file.write(std::string(1 << 20, 'x'));
  EXPECT_FALSE(file.commit_new(folder_.file("taken")));
  EXPECT_TRUE(file.commit_new(path));
  EXPECT_EQ(seen_, (std::vector<std::string>{"fdatasync 1048576 bytes, name shows 0 bytes",
                                             "fsync folder, name shows 1048576 bytes"}));
}

TEST_F(DiskSync, WhatTheDiskRefusesLeavesTheOldContents) {
  const std::string path = write_text(folder_.file("out.bin"), "old");
  for (const int code : {EIO, ENOSPC, EDQUOT}) {
    on_sync = [code](const char*, int) { return code; };
    AtomicFile file(path);
    file.write("newer");
    std::string message;
    try {
      file.commit();
    } catch (const Error& error) {
      message = error.what();
    }
    EXPECT_EQ(message, path + ": cannot write: " + std::generic_category().message(code));
    EXPECT_EQ(read_text(path), "old");
    EXPECT_EQ(std::distance(fs::directory_iterator(folder_.path()), fs::directory_iterator()), 1);
  }
}

TEST_F(DiskSync, FileSystemsThatCannotSyncAreWrittenAllTheSame) {
  for (const int code : {EINVAL, ENOSYS}) {
    on_sync = [code](const char*, int) { return code; };
    AtomicFile file(folder_.file("out.bin"));
    const std::string bytes(1 << 20, static_cast<char>(code));
    file.write(bytes);
    file.commit();
    EXPECT_TRUE(read_text(folder_.file("out.bin")) == bytes);
  }
}

TEST_F(DiskSync, AnInterruptedCallIsMadeAgain) {
  int calls = 0;
  on_sync = [&calls](const char*, int) { return ++calls < 3 ? EINTR : 0; };
  AtomicFile file(folder_.file("out.bin"));
  file.write("x");
  file.commit();
  EXPECT_EQ(calls, 3);
}

TEST_F(DiskSync, NothingIsSyncedWithoutACommit) {
  watch(folder_.file("out.bin"));
  AtomicFile(folder_.file("out.bin")).write("x");
  AtomicFile device("/dev/null");
  device.write("x");
  device.commit();
  EXPECT_TRUE(seen_.empty());
}

TEST_F(DiskSync, AFileWithoutAFolderIsInTheCurrentOne) {
  const fs::path before = fs::current_path();
  fs::current_path(folder_.path());
  ino_t synced = 0;
  on_sync = [&synced](const char*, int descriptor) {
    struct stat status {};
    EXPECT_EQ(::fstat(descriptor, &status), 0);
    synced = status.st_ino;
    return 0;
  };
  sync_folder_of("out.bin");
  fs::current_path(before);
  struct stat status {};
  ASSERT_EQ(::stat(folder_.path().c_str(), &status), 0);
  EXPECT_EQ(synced, status.st_ino);
}

}  // namespace
}  // namespace volley::test
