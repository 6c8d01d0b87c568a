#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "apps/flags.h"

namespace volley::apps {

// Where the files of a run go.
struct OutputNames {
  std::vector<std::string> paths;  // of file 0, 1, ...; "-" alone: standard output
  std::string folder;              // to be made if it is not there, or empty
};

// "%03d" stands for the number; "%%" for a percent sign.
bool has_number(const std::string& pattern);
std::string with_number(const std::string& pattern, int64_t number);

// Names for `count` files. With --out, file i has number i, and files that exist are refused unless
// --overwrite says otherwise; without, they are numbered on in --out-dir, "NNN.png" behind `prefix`. Looks,
// but changes nothing. Throws Error: kUsage for names that do not fit, kFailed for files in the way.
OutputNames name_outputs(const SharedFlags& flags, const std::string& prefix, int64_t count);

// Throws Error kUsage if --events names a file that is also one of the names.
void refuse_events_among(const OutputNames& names, const std::string& events);

// Makes the folder and tries to write there. Throws Error naming the path.
void prepare_outputs(const OutputNames& names);

}  // namespace volley::apps
