#include "text/llama_checkpoint.h"

#include <filesystem>

#include "core/io/byte_reader.h"
#include "core/io/open_weights.h"

namespace volley::text {
namespace {

namespace fs = std::filesystem;

bool is_gguf(const std::string& path) {
  std::error_code code;
  if (!fs::is_regular_file(path, code)) return false;
  const MappedFile file = MappedFile::open(path).value_or_throw(path);
  return as_text(file.bytes()).starts_with("GGUF");
}

}  // namespace

LlamaCheckpoint open_llama(const std::string& path) {
  if (is_gguf(path)) return llama_from_gguf(GgufFile::open(path).value_or_throw(path));
  std::error_code code;
  const bool is_folder = fs::is_directory(path, code);
  const fs::path folder = is_folder ? fs::path(path) : fs::path(path).parent_path();
  const std::string config = (folder / "config.json").string();
  // Of a folder of another kind of model, its config says more than the weights that are not there.
  if (is_folder && fs::exists(config, code)) parse_llama_config(read_json_file(config), config);
  std::unique_ptr<WeightSource> weights = open_weights(path);  // says what is wrong with the path
  return {.config = parse_llama_config(read_json_file(config), config), .weights = std::move(weights)};
}

}  // namespace volley::text
