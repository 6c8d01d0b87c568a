// The bytes as a JSON page and as an HTML page of a package index.

#include "apps/package_index.h"

#include <string>

#include "tests/fuzz/fuzz_target.h"

namespace {

void check(const volley::Result<std::vector<volley::apps::IndexedFile>>& files, size_t size) {
  using volley::fuzz::require;
  if (!files) {
    require(!files.fault().message.empty() && files.fault().message.find('\n') == std::string::npos);
    return;
  }
  size_t total = 0;
  for (const volley::apps::IndexedFile& file : files.value()) {
    require(file.sha256.empty() || (file.sha256.size() == 64 &&
                                    file.sha256.find_first_not_of("0123456789abcdef") == std::string::npos));
    total += file.name.size() + file.url.size() + file.sha256.size();
  }
  require(total <= size);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  check(volley::apps::parse_index_json(bytes), size);
  check(volley::apps::parse_index_html(bytes), size);
  return 0;
}
