#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "apps/flags.h"
#include "image/picture_file.h"

namespace volley::apps {

// What a name may say of its file.
struct OutputFields {
  std::string prompt;
  std::string name;
  int64_t line = 0;  // of a prompt file
  uint64_t seed = 0;
};

// Where the files of a run go.
struct OutputNames {
  std::vector<std::string> paths;  // of file 0, 1, ... in the first format; "-" alone: standard output
  std::string folder;              // to be made if it is not there, or empty
  std::vector<image::PictureFormat> formats;  // at least one
  // Numbered by us: a number that somebody else takes meanwhile is passed over.
  bool is_numbered = false;
  std::string prefix;  // of numbered names
  int64_t next = 0;    // number that was not given out yet
};

// "%03d" stands for the number, {prompt}, {name}, {line} and {seed} for the fields; "%%" for a percent sign.
// `flag` is for messages. Throws Error kUsage.
bool has_place(const std::string& flag, const std::string& pattern);
std::string fill_pattern(const std::string& flag, const std::string& pattern, int64_t number,
                         const OutputFields& fields);

// Names for the files. With --out, file i has number i, and files that exist are refused unless --overwrite
// or
// --skip-existing says otherwise; without, they are numbered on in --out-dir, "NNN.png" behind `prefix` (from
// 0 on with --skip-existing). Looks, but changes nothing. Throws Error: kUsage for names that do not fit,
// kFailed for files in the way.
OutputNames name_outputs(const SharedFlags& flags, const std::string& prefix,
                         std::span<const OutputFields> files);

// The path in the f-th format of a file whose path in the first is given.
std::string path_in_format(const OutputNames& names, const std::string& path, size_t f);
// The path of a numbered file.
std::string numbered_path(const OutputNames& names, int64_t number);

// Names of a side output such as --animate, one for each file or one alone. Throws Error as name_outputs
// does.
std::vector<std::string> name_side_outputs(const SharedFlags& flags, const std::string& flag,
                                           const std::string& pattern, std::span<const OutputFields> files);

// A path and who asked for it: a flag, or empty for the pictures.
struct OutputPlace {
  std::string flag;
  std::string path;
};
// Throws Error kUsage if two of them are one place.
void refuse_shared_places(std::span<const OutputPlace> places);

// Makes the pictures' folder and tries to write to every folder of the pictures and of `sides`. Throws Error
// naming the path; then the folder is gone again.
void prepare_outputs(const OutputNames& names, std::span<const OutputPlace> sides);

}  // namespace volley::apps
