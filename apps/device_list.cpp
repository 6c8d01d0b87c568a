// --device and --threads: which backends a verb computes on.
#include <algorithm>
#include <system_error>

#include "apps/flags.h"
#include "core/base/error.h"
#include "core/base/thread_pool.h"

namespace volley::apps {
namespace {

std::shared_ptr<const Backend> make(const std::string& device, int64_t threads) {
  try {
    return make_backend(device, threads);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kFailed || std::string_view(error.what()).starts_with("--device")) throw;
    throw Error("--threads " + std::to_string(threads) + ": " + error.what());
  } catch (const std::system_error& error) {
    throw Error("--threads " + std::to_string(threads) + ": cannot start them: " + error.code().message());
  }
}

// "cuda:" of "cuda:0", all of "cpu".
std::string_view kind_of(std::string_view device) {
  const size_t colon = device.find(':');
  return colon == std::string_view::npos ? device : device.substr(0, colon + 1);
}

bool is_number(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

[[noreturn]] void refuse(const std::string& list, const std::string& fault) {
  throw Error("--device " + list + ": " + fault, ErrorKind::kUsage);
}

}  // namespace

int64_t threads_for(const SharedFlags& flags) {
  return flags.threads > 0 ? flags.threads : physical_cores();
}

std::shared_ptr<const Backend> backend_for(const SharedFlags& flags) {
  if (flags.device.find(',') != std::string::npos)
    refuse(flags.device, "one device is expected; volley image shares its work among several");
  return make(flags.device, threads_for(flags));
}

std::vector<std::string> listed_devices(const std::string& list) {
  std::vector<std::string> devices;
  for (size_t begin = 0; begin <= list.size();) {
    const size_t end = std::min(list.find(',', begin), list.size());
    std::string device = list.substr(begin, end - begin);
    begin = end + 1;
    if (device.empty()) refuse(list, "a name is missing beside a comma");
    if (is_number(device) && !devices.empty() && devices.back().find(':') != std::string::npos)
      device = std::string(kind_of(devices.back())) + device;
    devices.push_back(std::move(device));
  }
  if (devices.size() > 1 && std::ranges::count(devices, "auto") > 0)
    refuse(list, "auto chooses one device and stands alone");
  return devices;
}

std::vector<std::shared_ptr<const Backend>> backends_for(const SharedFlags& flags) {
  const std::vector<std::string> devices = listed_devices(flags.device);
  const int64_t threads = threads_for(flags), count = std::ssize(devices);
  std::vector<std::shared_ptr<const Backend>> backends;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t share = std::max<int64_t>(1, threads / count + (i < threads % count ? 1 : 0));
    backends.push_back(make(devices[static_cast<size_t>(i)], share));
    const DeviceInfo &first = backends.front()->info(), &info = backends.back()->info();
    if (compute_alike(info, first)) continue;
    refuse(flags.device, first.name + " (" + first.description + ") and " + info.name + " (" +
                             info.description +
                             ") do not compute alike: a picture would depend on who made it");
  }
  return backends;
}

bool is_processor(const Backend& backend) {
  return backend.info().name.starts_with("cpu");
}

}  // namespace volley::apps
