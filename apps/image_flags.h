#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "apps/flags.h"
#include "core/backend/backend.h"
#include "image/image_job.h"

namespace volley::apps {

// What `volley image` takes.
struct ImageFlags {
  SharedFlags shared{.model = std::string(kDefaultModel),
                     .device_meaning =
                         "auto, cpu, cpu-reference or cuda:N; several share the pictures: cuda:0,1 "
                         "[auto, printed]"};
  std::vector<std::string> prompt;
  std::string class_name;
  std::string prompt_file;
  int64_t count = 1;
  std::optional<int64_t> batch;  // batch_for() says which
  std::string seeds;
  bool grid = false;
  std::optional<int64_t> quality;

  std::string init;
  std::string mask;
  std::string outpaint;
  std::optional<double> strength;
  std::optional<int64_t> feather;

  std::vector<std::string> previews;  // files, or "term"
  int64_t preview_every = 0;          // steps; 0: by time
  std::string animate;
  std::string step_map;
};

// Adds them to the verb's parser.
void add_image_flags(CLI::App& verb, ImageFlags& flags);

// Pictures decoded together at most: as asked for, or what suits the device.
int64_t batch_for(const ImageFlags& flags, const Backend& backend);

}  // namespace volley::apps
