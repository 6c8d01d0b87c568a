// volley models pull and remove: published weights from the hub into volley's own folder.
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <system_error>

#include "apps/download.h"
#include "apps/model_store.h"
#include "apps/models.h"
#include "core/base/error.h"
#include "core/decode/options.h"
#include "core/io/untrusted_text.h"

namespace volley::apps {
namespace {

namespace fs = std::filesystem;

constexpr const char* kHub = "https://huggingface.co";
constexpr size_t kLongestToken = 4096;

struct PullFlags {
  SharedFlags shared;
  std::string name;
  std::string endpoint = kHub;
  std::string token_file;
};

const image::PublishedModel& find_published(const std::string& name) {
  if (const image::PublishedModel* model = image::find_published_model(name)) return *model;
  std::vector<std::string> names;
  for (const image::PublishedModel& model : image::published_models()) names.emplace_back(model.name);
  const auto nearest = nearest_names(name, names, 1);
  throw Error(quote(name) + ": no published model of that name" +
                  (nearest.empty() ? "" : "; nearest is " + nearest.front()) +
                  "; volley models list names all",
              ErrorKind::kModelMissing);
}

// The hub's token: that of the file, else HF_TOKEN. Never printed.
std::string read_token(const PullFlags& flags) {
  std::string token;
  if (!flags.token_file.empty()) {
    std::ifstream file(flags.token_file, std::ios::binary);
    if (!file) throw Error(flags.token_file + ": cannot open: " + std::generic_category().message(errno));
    token.resize(kLongestToken + 1);
    file.read(token.data(), static_cast<std::streamsize>(token.size()));
    token.resize(static_cast<size_t>(file.gcount()));
  } else if (const char* value = std::getenv("HF_TOKEN")) {
    token = value;
  }
  const std::string from = flags.token_file.empty() ? "HF_TOKEN" : flags.token_file;
  while (!token.empty() && (token.back() == '\n' || token.back() == '\r' || token.back() == ' '))
    token.pop_back();
  const bool is_plain = std::ranges::all_of(token, [](unsigned char c) { return c > 0x20 && c < 0x7f; });
  if (!is_plain || token.size() > kLongestToken)
    throw Error(from + ": holds no token of one line", ErrorKind::kUsage);
  return token;
}

// One pull of a model at a time: the lock goes with the process.
class PullLock {
 public:
  PullLock(const std::string& folder, std::string_view name) {
    descriptor_ = ::open((folder + "/.lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (descriptor_ < 0) throw Error(folder + ": cannot lock: " + std::generic_category().message(errno));
    if (::flock(descriptor_, LOCK_EX | LOCK_NB) == 0) return;
    ::close(descriptor_);
    throw Error(std::string(name) + ": another process is at it already; wait for its end");
  }
  PullLock(const PullLock&) = delete;
  PullLock& operator=(const PullLock&) = delete;
  ~PullLock() { ::close(descriptor_); }

 private:
  int descriptor_ = -1;
};

// A line of progress, drawn ten times a second.
class PullProgress {
 public:
  PullProgress(Console& console, std::string label) : console_(console), label_(std::move(label)) {}

  void update(int64_t done, int64_t total) {
    const auto now = std::chrono::steady_clock::now();
    if (start_ == std::chrono::steady_clock::time_point()) {
      start_ = now;
      first_ = done;
    }
    if (now - drawn_ < std::chrono::milliseconds(100)) return;
    drawn_ = now;
    const double seconds = std::chrono::duration<double>(now - start_).count();
    const double rate = seconds > 0.0 ? static_cast<double>(done - first_) / seconds : 0.0;
    std::string line = label_ + "  " + byte_count(done);
    if (total > 0) {
      line += " of " + byte_count(total) + " (" +
              fixed(100.0 * static_cast<double>(done) / static_cast<double>(total), 0) + " %)";
    }
    if (rate > 0.0) {
      line += ", " + byte_count(static_cast<int64_t>(rate)) + "/s";
      if (total > done) line += ", " + fixed(static_cast<double>(total - done) / rate, 0) + " s left";
    }
    console_.progress(line);
  }
  void clear() { console_.progress({}); }

 private:
  Console& console_;
  std::string label_;
  std::chrono::steady_clock::time_point start_{}, drawn_{};
  int64_t first_ = 0;
};

void make_folder(const std::string& folder) {
  std::error_code code;
  fs::create_directories(folder, code);
  if (code) throw Error(folder + ": cannot make the folder: " + code.message());
}

nlohmann::json pull_one(const PullFlags& flags, const image::PublishedModel& model, Program& program) {
  Console& console = program.console;
  const std::string folder = (fs::path(store_folder()) / model.name).string();
  const std::string path = (fs::path(folder) / model.file).string();
  const size_t end = flags.endpoint.find_last_not_of('/') + 1;  // "https://host/" will do as well
  const std::string repository = flags.endpoint.substr(0, end) + "/" + std::string(model.repository);
  nlohmann::json json{{"name", model.name},
                      {"path", path},
                      {"repository", model.repository},
                      {"file", model.file},
                      {"licence", model.licence}};
  std::error_code code;
  if (fs::exists(path, code)) {
    console.note(std::string(model.name) + ": is here already: " + path);
    json["bytes"] = fs::file_size(path, code);
    json["state"] = "was there";
    return json;
  }
  const Url url = parse_url(repository + "/resolve/main/" + std::string(model.file), "--endpoint");
  console.note(std::string(model.name) + ": " + url.text() + " -> " + path + ", licence " +
               std::string(model.licence) + " (" + repository + ")");
  if (flags.shared.dry_run) {
    json["state"] = "would be pulled";
    return json;
  }
  make_folder(folder);
  const PullLock lock(folder, model.name);
  PullProgress progress(console, std::string(model.file));
  const DownloadResult result = download(
      {.url = url,
       .path = path,
       .token = read_token(flags),
       .sha256 = std::string(model.sha256),
       .help = "agree to its terms on " + repository + " and give a token: HF_TOKEN or --token-file FILE"},
      {.stop = program.stop,
       .on_progress = [&](int64_t done, int64_t total) { progress.update(done, total); },
       .on_note =
           [&](const std::string& line) {
             progress.clear();
             console.note(line);
           }});
  progress.clear();
  console.note(std::string(model.name) + ": " + byte_count(result.bytes) + ", sha256 " + result.sha256 +
               (result.is_verified ? ", as published" : ", which nobody vouches for: the server names none"));
  json["bytes"] = result.bytes;
  json["sha256"] = result.sha256;
  json["verified"] = result.is_verified;
  json["resumed_at"] = result.resumed_at;
  json["state"] = "pulled";
  return json;
}

int pull(const PullFlags& flags, Program& program) {
  const image::PublishedModel& model = find_published(flags.name);
  nlohmann::json json{{"schema", kPullSchema}, {"models", nlohmann::json::array()}};
  // The tokenizer first: it is small, and the rest is of no use without it.
  if (!model.vq.empty()) {
    const std::string vq(model.vq);
    if (const auto stored = find_stored_model(vq); !stored || stored->place != StorePlace::kHubCache)
      json["models"].push_back(pull_one(flags, find_published(vq), program));
  }
  json["models"].push_back(pull_one(flags, model, program));
  if (flags.shared.json) {
    program.console.print_line(json.dump());
  } else {
    for (const nlohmann::json& pulled : json["models"])
      program.console.print_line(pulled["path"].get<std::string>());
  }
  return kExitDone;
}

int remove(const PullFlags& flags, Console& console) {
  const image::PublishedModel& model = find_published(flags.name);
  const std::string folder = (fs::path(store_folder()) / model.name).string();
  std::error_code code;
  if (!fs::exists(folder, code)) {
    throw Error(std::string(model.name) + ": was not pulled; " + folder + " is not there",
                ErrorKind::kModelMissing);
  }
  {
    const PullLock lock(folder, model.name);
    fs::remove_all(folder, code);
  }
  if (code) throw Error(folder + ": cannot remove: " + code.message());
  if (flags.shared.json) {
    console.print_line(nlohmann::json{{"schema", kPullSchema}, {"removed", folder}}.dump());
  } else {
    console.print_line(folder);
  }
  return kExitDone;
}

Verb make_verb(CLI::App& verb, const std::shared_ptr<PullFlags>& flags, std::function<int(Program&)> run) {
  return {
      .parser = &verb, .schema = std::string(kPullSchema), .flags = &flags->shared, .run = std::move(run)};
}

}  // namespace

Verb add_models_pull(CLI::App& models) {
  const auto flags = std::make_shared<PullFlags>();
  CLI::App& verb = *models.add_subcommand("pull", "get a published model and the tokenizer it needs");
  verb.footer(
      "Files go to volley/models under $XDG_DATA_HOME (~/.local/share). A download that ended early is gone "
      "on with.\n"
      "For models that ask for it, HF_TOKEN or --token-file gives a token of the hub.");
  verb.add_option("name", flags->name, "a published model, see volley models list")
      ->type_name("NAME")
      ->required();
  add_text(verb,
           {.names = "--endpoint",
            .type = "URL",
            .meaning = std::string("the hub, or a mirror of it [") + kHub + "]"},
           flags->endpoint);
  add_text(verb, {.names = "--token-file", .type = "FILE", .meaning = "file with the hub's token [HF_TOKEN]"},
           flags->token_file);
  add_shared_flags(verb, flags->shared, {"json", "dry-run", "no-progress"});
  return make_verb(verb, flags, [flags](Program& p) { return pull(*flags, p); });
}

Verb add_models_remove(CLI::App& models) {
  const auto flags = std::make_shared<PullFlags>();
  CLI::App& verb = *models.add_subcommand("remove", "remove a pulled model from volley's folder");
  verb.add_option("name", flags->name, "a pulled model")->type_name("NAME")->required();
  add_shared_flags(verb, flags->shared, {"json"});
  return make_verb(verb, flags, [flags](Program& p) { return remove(*flags, p.console); });
}

}  // namespace volley::apps
