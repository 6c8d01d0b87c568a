#include "core/base/machine.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <fstream>
#include <iterator>
#include <sstream>

#include "core/base/thread_pool.h"

namespace volley {
namespace {

constexpr std::array<std::string_view, 10> kInstructions{"avx2",     "avx512f",  "avx512_vnni", "avx512_bf16",
                                                         "amx_int8", "amx_bf16", "asimd",       "asimddp",
                                                         "i8mm",     "bf16"};

std::string text_of(const std::string& path) {
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

namespace {

std::optional<int64_t> number_of(const std::string& text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end == text.data()) return std::nullopt;  // "max", or no such file
  return value;
}

// The number behind a word at the beginning of a line.
int64_t statistic(const std::string& text, const std::string& word) {
  const size_t at = ("\n" + text).find("\n" + word + " ");
  return at == text.npos ? 0 : number_of(text.substr(at + word.size() + 1)).value_or(0);
}

// Files of a version of control groups.
struct GroupFiles {
  const char* folder;  // where the groups are mounted
  const char* limit;
  const char* usage;
  std::array<const char*, 2> files;  // of memory.stat: what is kept of files, read once and again
};
constexpr GroupFiles kVersion2{
    "/sys/fs/cgroup", "memory.max", "memory.current", {"inactive_file", "active_file"}};
constexpr GroupFiles kVersion1{"/sys/fs/cgroup/memory",
                               "memory.limit_in_bytes",
                               "memory.usage_in_bytes",
                               {"total_inactive_file", "total_active_file"}};

// What a group and all around it have left, the least.
std::optional<int64_t> left_of(const std::string& root, const GroupFiles& files, std::string group) {
  std::optional<int64_t> least;
  while (true) {
    const std::string folder = root + files.folder + group + "/";
    const auto limit = number_of(text_of(folder + files.limit)),
               usage = number_of(text_of(folder + files.usage));
    if (limit && usage) {
      const std::string statistics = text_of(folder + "memory.stat");
      int64_t files_bytes = 0;
      for (const char* kind : files.files) files_bytes += statistic(statistics, kind);
      const int64_t left = *limit - std::max<int64_t>(0, *usage - files_bytes);
      least = std::min(least.value_or(left), left);
    }
    if (group.empty()) return least;
    group.resize(group.find_last_of('/'));  // within a container the folder may be the group itself
  }
}

std::optional<int64_t> least_of(std::optional<int64_t> a, std::optional<int64_t> b) {
  return a && b ? std::min(*a, *b) : a ? a : b;
}

}  // namespace

// Lines of /proc/self/cgroup: "0::/group" of version 2, "N:memory:/group" of version 1.
std::optional<int64_t> control_group_memory_left(const std::string& root) {
  std::optional<int64_t> least;
  std::istringstream lines(text_of(root + "/proc/self/cgroup"));
  for (std::string line; std::getline(lines, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == line.npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    std::string group = line.substr(second + 1);
    if (!group.starts_with('/')) continue;
    if (group == "/") group.clear();
    if (controllers == ",,") least = least_of(least, left_of(root, kVersion2, group));
    if (controllers.find(",memory,") != controllers.npos)
      least = least_of(least, left_of(root, kVersion1, group));
  }
  return least;
}

std::optional<int64_t> address_space_left() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur > INT64_MAX) return std::nullopt;
  int64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return static_cast<int64_t>(limit.rlim_cur) - pages * ::sysconf(_SC_PAGESIZE);
}

int64_t available_memory() {
  const int64_t available = parse_available_memory(text_of("/proc/meminfo"));
  const auto limited = least_of(control_group_memory_left(), address_space_left());
  if (!limited) return available;
  const int64_t least = available > 0 ? std::min(available, *limited) : *limited;
  return std::max<int64_t>(least, 1);
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
