#include "core/base/machine.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <iterator>
#include <sstream>

#include "core/base/thread_pool.h"

namespace volley {
namespace {

constexpr std::array<std::string_view, 10> kInstructions{"avx2",     "avx512f",  "avx512_vnni", "avx512_bf16",
                                                         "amx_int8", "amx_bf16", "asimd",       "asimddp",
                                                         "i8mm",     "bf16"};

std::string text_of(const char* path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// What stands behind the colon of the first line that begins with `key`.
std::string value_of(std::string_view text, std::string_view key) {
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = text.substr(begin, end - begin);
    const size_t colon = line.find(": ");
    if (line.starts_with(key) && colon != line.npos) return std::string(line.substr(colon + 2));
    begin = end + 1;
  }
  return {};
}

}  // namespace

MachineInfo parse_cpuinfo(std::string_view text) {
  MachineInfo info{.processor = value_of(text, "model name")};
  if (info.processor.empty()) info.processor = "unknown processor";
  std::istringstream flags(value_of(text, "flags") + " " + value_of(text, "Features"));
  const std::vector<std::string> all{std::istream_iterator<std::string>(flags),
                                     std::istream_iterator<std::string>()};
  for (const std::string_view name : kInstructions) {
    if (std::ranges::find(all, name) != all.end()) info.instructions.emplace_back(name);
  }
  return info;
}

MachineInfo describe_machine() {
  MachineInfo info = parse_cpuinfo(text_of("/proc/cpuinfo"));
  info.physical_cores = physical_cores();
  info.logical_cores = std::max<int64_t>(::sysconf(_SC_NPROCESSORS_ONLN), 1);
  info.memory_bytes = std::max<int64_t>(::sysconf(_SC_PHYS_PAGES), 0) * ::sysconf(_SC_PAGESIZE);
  return info;
}

int64_t parse_available_memory(std::string_view text) {
  const auto kibibytes = [&](std::string_view key) -> int64_t {
    const size_t at = text.find(key);
    if (at == std::string_view::npos) return -1;
    return std::strtoll(std::string(text.substr(at + key.size(), 32)).c_str(), nullptr, 10);
  };
  const int64_t available = kibibytes("MemAvailable:"), swap = kibibytes("SwapFree:");
  return available < 0 ? 0 : (available + std::max<int64_t>(swap, 0)) * 1024;
}

int64_t available_memory() {
  return parse_available_memory(text_of("/proc/meminfo"));
}

std::string load_average() {
  std::ifstream file("/proc/loadavg");
  std::string one, five, fifteen;
  file >> one >> five >> fifteen;
  return one + " " + five + " " + fifteen;
}

MemoryWatch::MemoryWatch(std::chrono::milliseconds between_looks)
    : thread_([this, between_looks](const std::stop_token& stop) {
        while (!stop.stop_requested()) {
          look();
          std::this_thread::sleep_for(between_looks);
        }
      }) {}

MemoryWatch::~MemoryWatch() = default;

int64_t MemoryWatch::take_peak() {
  look();
  return peak_.exchange(0);
}

// /proc/self/statm in pages: size, resident, resident of files and shared memory. Much cheaper to read than
// /proc/self/status, and from the same counters.
void MemoryWatch::look() {
  std::ifstream file("/proc/self/statm");
  int64_t size = 0, resident = 0, shared = 0;
  file >> size >> resident >> shared;
  const int64_t now = (resident - shared) * ::sysconf(_SC_PAGESIZE);
  int64_t peak = peak_.load();
  while (peak < now && !peak_.compare_exchange_weak(peak, now)) {
  }
}

}  // namespace volley
