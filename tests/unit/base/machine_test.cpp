#include "core/base/machine.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "tests/unit/io/temp_folder.h"

namespace volley {
namespace {

TEST(Machine, ProcessorAndInstructionsAreRead) {
  const MachineInfo info = parse_cpuinfo(
      "processor\t: 0\nmodel name\t: Some Processor @ 2.00GHz\nflags\t\t: fpu avx2 avx512f_not amx_int8\n\n"
      "processor\t: 1\nmodel name\t: Another\nflags\t\t: avx512f\n");
  EXPECT_EQ(info.processor, "Some Processor @ 2.00GHz");
  EXPECT_EQ(info.instructions, (std::vector<std::string>{"avx2", "amx_int8"}));
  const MachineInfo other = parse_cpuinfo("processor\t: 0\nFeatures\t: fp asimd bf16\n");
  EXPECT_EQ(other.processor, "unknown processor");
  EXPECT_EQ(other.instructions, (std::vector<std::string>{"asimd", "bf16"}));
  EXPECT_EQ(parse_cpuinfo("").processor, "unknown processor");
}

TEST(Machine, HasCoresAndMemory) {
  const MachineInfo info = describe_machine();
  EXPECT_FALSE(info.processor.empty());
  EXPECT_GE(info.physical_cores, 1);
  EXPECT_GE(info.logical_cores, info.physical_cores);
  EXPECT_GT(info.memory_bytes, int64_t{16} << 20);
  EXPECT_EQ(info, describe_machine());
  EXPECT_EQ(std::ranges::count(load_average(), ' '), 2);
}

TEST(Machine, ThePeakHoldsWhatTheProcessHolds) {
  constexpr size_t kBytes = size_t{96} << 20;
  MemoryWatch watch;
  const int64_t before = watch.take_peak();
  EXPECT_GT(before, 0);
  const std::vector<char> memory(kBytes, 1);
  EXPECT_GE(watch.take_peak(), before + static_cast<int64_t>(kBytes) / 2);
  EXPECT_EQ(std::ranges::count(memory, 1), std::ssize(memory));
}

TEST(Machine, AvailableMemoryIsTheSystemsEstimate) {
  EXPECT_EQ(parse_available_memory("MemTotal: 9 kB\nMemAvailable:    2048 kB\nSwapFree:  1 kB\n"),
            2049 * 1024);
  EXPECT_EQ(parse_available_memory("MemTotal: 9 kB\nMemAvailable: 4 kB\n"), 4096);
  EXPECT_EQ(parse_available_memory("MemTotal: 9 kB\n"), 0);
  EXPECT_GT(available_memory(), 0);
}

// What the system says of control groups, in a folder.
class GroupFolder {
 public:
  void write(const std::string& path, const std::string& text) const {
    const std::filesystem::path file = folder_.path() / path;
    std::filesystem::create_directories(file.parent_path());
    test::write_text(file.string(), text);
  }
  std::optional<int64_t> left() const { return control_group_memory_left(folder_.path().string()); }

 private:
  test::TempFolder folder_;
};

TEST(Machine, ControlGroupsOfVersion2LimitMemory) {
  const GroupFolder folder;
  EXPECT_EQ(folder.left(), std::nullopt);
  folder.write("proc/self/cgroup", "0::/user/job\n");
  EXPECT_EQ(folder.left(), std::nullopt);
  folder.write("sys/fs/cgroup/user/job/memory.max", "max\n");
  folder.write("sys/fs/cgroup/user/job/memory.current", "700\n");
  EXPECT_EQ(folder.left(), std::nullopt);
  folder.write("sys/fs/cgroup/user/memory.max", "5000\n");
  folder.write("sys/fs/cgroup/user/memory.current", "1000\n");
  EXPECT_EQ(folder.left(), 4000) << "a group around it";
  folder.write("sys/fs/cgroup/user/job/memory.max", "3000\n");
  EXPECT_EQ(folder.left(), 2300);
  folder.write("sys/fs/cgroup/user/job/memory.stat", "active_file 7\ninactive_file 200\nslab 1\n");
  EXPECT_EQ(folder.left(), 2507) << "files give way";
}

TEST(Machine, AContainersOwnGroupMayBeTheRootFolder) {
  const GroupFolder folder;
  folder.write("proc/self/cgroup", "0::/not/seen/in/here\n");
  folder.write("sys/fs/cgroup/memory.max", "3000\n");
  folder.write("sys/fs/cgroup/memory.current", "1000\n");
  EXPECT_EQ(folder.left(), 2000);
  folder.write("proc/self/cgroup", "0::/\n");
  EXPECT_EQ(folder.left(), 2000);
}

TEST(Machine, ControlGroupsOfVersion1LimitMemory) {
  const GroupFolder folder;
  folder.write("proc/self/cgroup", "5:cpu,cpuacct:/a\n4:memory:/box/job\n0::/\n");
  folder.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  folder.write("sys/fs/cgroup/memory/memory.usage_in_bytes", "5\n");
  folder.write("sys/fs/cgroup/memory/box/job/memory.limit_in_bytes", "8000\n");
  folder.write("sys/fs/cgroup/memory/box/job/memory.usage_in_bytes", "3000\n");
  folder.write("sys/fs/cgroup/memory/box/job/memory.stat",
               "inactive_file 1\ntotal_inactive_file 500\ntotal_active_file 20\n");
  EXPECT_EQ(folder.left(), 5520);
}

TEST(Machine, TheAddressSpacesLimitCounts) {
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_AS, &before), 0);
  if (before.rlim_cur != RLIM_INFINITY) GTEST_SKIP() << "it is limited already";
  int64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  constexpr int64_t kLeft = int64_t{64} << 20;
  rlimit limited = before;
  limited.rlim_cur = static_cast<rlim_t>(pages * ::sysconf(_SC_PAGESIZE) + kLeft);
  ASSERT_EQ(::setrlimit(RLIMIT_AS, &limited), 0);
  const auto left = address_space_left();
  const int64_t available = available_memory();
  limited.rlim_cur = rlim_t{1} << 63;  // more than a signed number counts
  ASSERT_EQ(::setrlimit(RLIMIT_AS, &limited), 0);
  const auto endless = address_space_left();
  ASSERT_EQ(::setrlimit(RLIMIT_AS, &before), 0);
  ASSERT_TRUE(left.has_value());
  EXPECT_NEAR(static_cast<double>(*left), double{kLeft}, double{4 << 20});
  EXPECT_LE(available, kLeft);
  EXPECT_EQ(endless, std::nullopt);
  EXPECT_EQ(address_space_left(), std::nullopt);
}

}  // namespace
}  // namespace volley
