#include "apps/output_place.h"

#include <filesystem>
#include <system_error>

#include "core/base/error.h"
#include "core/io/atomic_file.h"

namespace volley::apps {

void check_output_place(const std::string& path, const SharedFlags& flags) {
  std::error_code code;
  if (std::filesystem::is_directory(path, code)) throw Error(path + ": is a directory");
  if (!flags.overwrite && std::filesystem::is_regular_file(path, code))
    throw Error(path + ": exists already; --overwrite replaces it");
  if (!std::filesystem::exists(path, code)) const AtomicFile place(path);
}

}  // namespace volley::apps
