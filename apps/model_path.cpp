// Where models are: the only place that reads VOLLEY_MODEL_PATH.
#include "apps/model_path.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <set>
#include <system_error>

#include "apps/model_store.h"
#include "core/base/error.h"
#include "core/decode/options.h"
#include "core/io/untrusted_text.h"

namespace volley::apps {
namespace {

namespace fs = std::filesystem;

bool is_model(const fs::path& folder) {
  std::error_code code;
  return fs::exists(folder / "config.json", code);
}

}  // namespace

std::vector<std::string> model_folders() {
  std::vector<std::string> folders;
  if (const char* path = std::getenv("VOLLEY_MODEL_PATH")) {
    const std::string list = path;
    for (size_t begin = 0; begin <= list.size();) {
      const size_t end = std::min(list.find(':', begin), list.size());
      if (end > begin) folders.push_back(list.substr(begin, end - begin));
      begin = end + 1;
    }
  }
  std::error_code code;
  const fs::path program = fs::read_symlink("/proc/self/exe", code);
  if (!code) folders.push_back((program.parent_path().parent_path() / "share/volley/models").string());
  folders.emplace_back(VOLLEY_SOURCE_MODELS);
  return folders;
}

std::vector<BoxedModel> boxed_models() {
  std::vector<BoxedModel> models;
  std::set<std::string> names;
  for (const std::string& folder : model_folders()) {
    std::error_code code;
    for (fs::directory_iterator entry(folder, code), end; !code && entry != end; entry.increment(code)) {
      const std::string name = entry->path().filename().string();
      if (is_model(entry->path()) && names.insert(name).second) {
        models.push_back({.name = name, .path = entry->path().string()});
      }
    }
  }
  std::ranges::sort(models, {}, &BoxedModel::name);
  return models;
}

std::string find_boxed_model(const std::string& name, const std::string& subject) {
  std::vector<std::string> names;
  for (const BoxedModel& model : boxed_models()) {
    if (model.name == name) return model.path;
    names.push_back(model.name);
  }
  if (const auto stored = find_stored_model(name)) return stored->path;
  if (is_published(name)) {
    throw Error(subject + ": is not on this machine; volley models pull " + name + " gets it",
                ErrorKind::kModelMissing);
  }
  std::ranges::move(published_names(), std::back_inserter(names));
  for (const StoredModel& stored : stored_models()) names.push_back(stored.entry.name());
  const auto meant = likely_name(name, names);
  throw Error(
      subject + ": no such model; " + (meant ? "nearest is " + *meant : "volley models list names them"),
      ErrorKind::kModelMissing);
}

std::string find_model(const std::string& name_or_path, const std::string& flag) {
  if (name_or_path.find('/') != std::string::npos || name_or_path == "." || name_or_path == "..")
    return name_or_path;
  for (const BoxedModel& model : boxed_models()) {
    if (model.name == name_or_path) return model.path;
  }
  if (const auto stored = find_stored_model(name_or_path)) return stored->path;
  std::error_code code;
  if (fs::exists(name_or_path, code)) return name_or_path;
  return find_boxed_model(name_or_path, flag + " " + quote(name_or_path) + " (a path holds a slash)");
}

std::string default_text_model(const std::string& verb) {
  std::vector<StoredModel> pulled;
  for (StoredModel& stored : stored_models()) {
    if (stored.entry.text != nullptr && stored.place == StorePlace::kPulled)
      pulled.push_back(std::move(stored));
  }
  if (pulled.size() == 1) return pulled.front().path;
  if (pulled.empty()) {
    throw Error(verb + ": no text model was pulled; volley models pull " +
                    std::string(text::published_models().front().name) + " gets a small one, -m names any",
                ErrorKind::kModelMissing);
  }
  std::string names;
  for (const StoredModel& stored : pulled) names += (names.empty() ? "" : ", ") + stored.entry.name();
  throw Error(verb + ": name a model by -m; these were pulled: " + names, ErrorKind::kUsage);
}

bool is_text_model(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code code;
  return path.ends_with(".gguf") || fs::exists(fs::path(path) / "tokenizer.json", code) ||
         fs::exists(fs::path(path) / "tokenizer.model", code);
}

}  // namespace volley::apps
