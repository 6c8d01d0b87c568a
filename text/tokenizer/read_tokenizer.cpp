#include "text/tokenizer/read_tokenizer.h"

#include <filesystem>

#include "core/io/byte_reader.h"
#include "core/io/json.h"
#include "core/io/mapped_file.h"

namespace volley::text {
namespace {

namespace fs = std::filesystem;

bool is_file(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

// tokenizer_config.json beside the vocabulary; newer folders hold the chat template in a file of its own.
nlohmann::json read_config(const fs::path& folder) {
  nlohmann::json config;
  const fs::path path = folder / "tokenizer_config.json";
  if (is_file(path)) config = read_json_file(path.string());
  const fs::path chat = folder / "chat_template.jinja";
  if (is_file(chat)) {
    const MappedFile file = MappedFile::open(chat.string()).value_or_throw(chat.string());
    if (!config.is_object()) config = nlohmann::json::object();
    config["chat_template"] = std::string(as_text(file.bytes()));
  }
  return config;
}

}  // namespace

TokenizerPtr read_tokenizer(const std::string& path) {
  fs::path file = path;
  std::error_code ignored;
  if (fs::is_directory(file, ignored)) {
    const fs::path folder = file;
    file = folder / "tokenizer.json";
    for (const char* name : {"tokenizer.model", "spiece.model"}) {
      if (!is_file(file) && is_file(folder / name)) file = folder / name;
    }
    if (!is_file(file)) {
      throw Error(path + ": no tokenizer.json, tokenizer.model or spiece.model in this folder",
                  ErrorKind::kModelMissing);
    }
  }
  const MappedFile mapped = MappedFile::open(file.string()).value_or_throw(file.string());
  const nlohmann::json config = read_config(file.parent_path());
  if (file.extension() == ".model") return parse_sentencepiece(mapped.bytes(), config, file.string());
  return parse_tokenizer_json(as_text(mapped.bytes()), config, file.string());
}

}  // namespace volley::text
