#pragma once

#include <chrono>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "core/backend/backend.h"

namespace volley {

enum class ImageFamily : uint8_t {
  kArpg,      // 256 cells, parallel, guidance
  kLlamaGen,  // 256 tokens, sequential, guidance
  kVq,        // codes to 256 x 256 pixels
};

// One line of the table. Named "arpg-b1", "arpg-b1-s32", "llamagen-b4", "vq-b1": family, pictures made
// together, steps of ARPG.
struct ImageCase {
  ImageFamily family = ImageFamily::kArpg;
  int64_t batch = 1;
  int64_t steps = 64;
};
// Throws Error kUsage.
ImageCase parse_image_case(std::string_view name);
std::string image_case_name(const ImageCase& wanted);
// Which cases a checkpoint is for, by its tensors. Throws Error if for none.
ImageFamily family_of_checkpoint(const std::string& path);

enum class Profiling : uint8_t { kNo, kYes };

struct ImageCaseOptions {
  ImageCase wanted;
  std::string weights;  // checkpoint with published tensor names
  std::string dtype = "bf16";
  std::string device = "cpu";
  int64_t threads = 0;  // 0: physical cores
  int64_t repeats = 5;
  Profiling profiling = Profiling::kNo;
  std::chrono::steady_clock::time_point started;  // of the process
};

// Loads the model as `volley image` does, but without hashing the file, and runs the case: once to warm up,
// `repeats` times for the clock, once with every operation counted. The process should be a fresh one: time
// to the first token and peak memory are of its whole life. Returns an object of the report's columns;
// seconds and bytes. Throws Error.
nlohmann::json run_image_case(const ImageCaseOptions& options);

}  // namespace volley
