#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "apps/console.h"
#include "core/backend/backend.h"
#include "image/image_request.h"

namespace volley::apps {

inline constexpr std::string_view kDefaultModel = "emoji-128";

// Flags that mean the same in every verb that has them.
struct SharedFlags {
  std::string model;
  std::string out;
  std::string out_dir;
  std::string format;
  bool overwrite = false;
  bool skip_existing = false;
  std::string device = "auto";
  std::string dtype = "auto";
  int64_t threads = 0;  // 0: physical cores
  image::MethodChoices method;
  int64_t seed = 0;  // -1: random
  bool json = false;
  std::string events;
  bool check = false;
  bool dry_run = false;
  bool quiet = false;
  bool verbose = false;
  bool no_progress = false;
  When color = When::kAuto;

  void apply_to(Console& console) const;
};

// Adds the flags of these names (long, without dashes) to a verb, and those every verb has: --quiet,
// --verbose,
// --color.
void add_shared_flags(CLI::App& verb, SharedFlags& flags, std::initializer_list<std::string_view> names);

// A flag that takes a number. Values outside the range are Error kUsage.
struct NumberFlag {
  std::string names;  // "-s,--seed"
  std::string meaning;
  double low = 0.0;
  double high = 0.0;
};
// A flag that takes text, which may not be empty.
void add_text(CLI::App& verb, const std::string& names, std::string& target, const std::string& type,
              const std::string& meaning);
// A flag that takes one of a few words; `store` gets its place among them. Others are Error kUsage.
void add_choice(CLI::App& verb, const std::string& name, std::vector<std::string> choices,
                const std::string& meaning, std::function<void(size_t)> store);
void add_integer(CLI::App& verb, const NumberFlag& flag, std::function<void(int64_t)> store);
void add_number(CLI::App& verb, const NumberFlag& flag, std::function<void(double)> store);

// The backend of --device and --threads, and the number of threads that it uses.
std::shared_ptr<const Backend> backend_for(const SharedFlags& flags);
int64_t threads_for(const SharedFlags& flags);
WeightType weight_type_for(const std::string& dtype, const Backend& backend);

}  // namespace volley::apps
