#include "core/base/machine.h"

#include <gtest/gtest.h>

#include <algorithm>

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

}  // namespace
}  // namespace volley
