// volley devices: what --device may name on this machine.
#include <memory>

#include "apps/verbs.h"
#include "core/base/error.h"
#include "core/base/thread_pool.h"

namespace volley::apps {
namespace {

constexpr std::string_view kSchema = "volley.devices/1";

int run(const SharedFlags& flags, Console& console) {
  const std::string automatic = make_backend("auto", 1)->info().name;
  nlohmann::json json{
      {"schema", kSchema}, {"physical_cores", physical_cores()}, {"devices", nlohmann::json::array()}};
  std::string text;
  for (const std::string& device : devices()) {
    nlohmann::json entry{{"name", device}};
    std::string name = device;
    name.resize(16, ' ');
    try {
      const DeviceInfo info = make_backend(device, 1)->info();
      entry["available"] = true;
      entry["auto"] = info.name == automatic;
      entry["description"] = info.description;
      entry["bf16"] = info.has_bf16;
      text += name + info.description + (info.has_bf16 ? ", native bf16" : ", no native bf16") +
              (info.name == automatic ? "  (auto)" : "") + "\n";
    } catch (const Error& error) {
      entry["available"] = false;
      entry["description"] = error.what();
      text += name + "not available: " + error.what() + "\n";
    }
    json["devices"].push_back(std::move(entry));
  }
  if (flags.json) {
    console.print_line(json.dump());
  } else {
    console.print(text + plural(physical_cores(), "physical core") + ", used by default\n");
  }
  return kExitDone;
}

}  // namespace

std::vector<std::string> device_names() {
  return devices();
}

Verb add_devices(CLI::App& program) {
  const auto flags = std::make_shared<SharedFlags>();
  CLI::App& verb = add_verb(program, "devices", "list the devices that can compute");
  add_shared_flags(verb, *flags, {"json"});
  return {.parser = &verb, .schema = std::string(kSchema), .flags = flags.get(), .run = [flags](Program& p) {
            return run(*flags, p.console);
          }};
}

}  // namespace volley::apps
