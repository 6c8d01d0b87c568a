#pragma once

#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "apps/console.h"
#include "apps/output_names.h"
#include "image/picture_file.h"

namespace volley::apps {

// What becomes of a file that is there already when ours is finished.
enum class Existing : uint8_t { kKeep, kReplace };

// Writes a whole file at once. With kKeep, throws Error if the name is taken.
void write_file(const std::string& path, std::string_view bytes, Existing existing);

// How the bytes of a file are made, in each of its formats; empty where that file is kept.
struct PictureEncoding {
  std::vector<std::optional<image::PictureFormat>> formats;
  std::optional<int64_t> quality;
};
// One of each format. From any thread.
std::vector<std::string> encode(const PictureEncoding& encoding, const image::Picture& picture,
                                const image::RunRecord& record);

// Writes the pictures of a run under their names, in all formats.
class PictureWriter {
 public:
  PictureWriter(Console& console, OutputNames& names, std::optional<int64_t> quality, Existing existing)
      : console_(console), names_(names), quality_(quality), existing_(existing) {}

  PictureEncoding encoding_of(size_t index) const;
  // Writes file `index`, as it was encoded; a numbered one moves on to a free number if its own was taken
  // meanwhile, which changes the names. Throws Error.
  void write(size_t index, const std::vector<std::string>& encoded);
  // This file is there and is what `write` would make: it stays.
  void keep(const std::string& path) { kept_.insert(path); }
  // This file is there and `write` may put another in its place.
  void replace(const std::string& path) { replaced_.insert(path); }
  // The paths of a file, one in each format.
  std::vector<std::string> paths(size_t index) const;

 private:
  Console& console_;
  OutputNames& names_;
  std::optional<int64_t> quality_;
  Existing existing_;
  std::set<std::string> kept_;
  std::set<std::string> replaced_;
};

}  // namespace volley::apps
