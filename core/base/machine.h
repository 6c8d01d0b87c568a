#pragma once

// What a measurement has to say of its machine, and what the machine does meanwhile: processor, cores and
// memory, load, memory of this process.

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace volley {

struct MachineInfo {
  std::string processor;  // as it names itself, "unknown processor" if it does not
  // Those that kernels are chosen by and the processor has, of a fixed list: "avx2", "avx512f", ...
  std::vector<std::string> instructions;
  int64_t physical_cores = 1;
  int64_t logical_cores = 1;
  int64_t memory_bytes = 0;  // of the machine; 0: not known

  bool operator==(const MachineInfo&) const = default;
};
MachineInfo describe_machine();

// Processor and instructions by the text of /proc/cpuinfo.
MachineInfo parse_cpuinfo(std::string_view text);

// Bytes that programs can still take, swap included, by the text of /proc/meminfo; 0: not known.
int64_t parse_available_memory(std::string_view text);

// The same as far as limits go that the system sets this process: the least of what its memory control groups
// (version 2 and 1, and those around them) and its address space have left. Nothing: there is no limit.
// `root` stands before /proc and /sys, for tests. Contents of files that a group can give back count as left.
std::optional<int64_t> control_group_memory_left(const std::string& root = "");
std::optional<int64_t> address_space_left();

// The least of all three, at least 1; 0: not known.
int64_t available_memory();

// The first three fields of /proc/loadavg.
std::string load_average();

// Anonymous memory of this process (resident, but for files and shared memory), looked at now and then while
// the object lives. Mapped files do not count: their pages are the system's.
class MemoryWatch {
 public:
  explicit MemoryWatch(std::chrono::milliseconds between_looks = std::chrono::milliseconds(1));
  ~MemoryWatch();
  MemoryWatch(const MemoryWatch&) = delete;
  MemoryWatch& operator=(const MemoryWatch&) = delete;

  // The highest value since the last call, in bytes.
  int64_t take_peak();

 private:
  void look();

  std::atomic<int64_t> peak_ = 0;
  std::jthread thread_;
};

}  // namespace volley
