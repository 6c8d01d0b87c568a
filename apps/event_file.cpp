#include "apps/event_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

#include "core/base/error.h"

namespace volley::apps {

void refuse_taken_events(const SharedFlags& flags) {
  if (flags.events == "-" && flags.json)
    throw Error("--events -: standard output is taken by --json", ErrorKind::kUsage);
}

EventFile::EventFile(std::string path, Existing existing) : path_(std::move(path)) {
  if (path_ == "-") {
    path_ = "--events -";
    const int output = ::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0);
    if (output >= 0) file_.reset(::fdopen(output, "w"));
    if (file_ == nullptr) throw Error(path_ + ": cannot write: " + std::generic_category().message(errno));
    return;
  }
  std::error_code code;
  const bool is_file = std::filesystem::is_regular_file(path_, code);
  if (is_file && existing == Existing::kRefuse)
    throw Error(path_ + ": exists already; --overwrite replaces it");
  const int descriptor =
      ::open(path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | (is_file ? O_TRUNC : 0), 0666);
  if (descriptor >= 0) file_.reset(::fdopen(descriptor, "w"));
  if (file_ == nullptr) throw Error(path_ + ": cannot create: " + std::generic_category().message(errno));
}

void EventFile::write(nlohmann::json event) {
  event["schema"] = "volley.event/1";
  const std::string line = event.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  if (std::fwrite(line.data(), 1, line.size(), file_.get()) != line.size() || std::fflush(file_.get()) != 0) {
    throw Error(path_ + ": cannot write: " + std::generic_category().message(errno));
  }
}

void EventFile::start(const image::ImageRequest& request) {
  write({{"event", "start"}, {"request", image::to_json(request)}});
}

void EventFile::step(const StepEvent& event) {
  write({{"event", "step"},
         {"picture", event.generation},
         {"step", event.step},
         {"positions", event.positions},
         {"tokens", event.tokens},
         {"proposed", event.proposed},
         {"accepted", event.accepted},
         {"source", event.source},
         {"done", event.done},
         {"total", event.total}});
}

void EventFile::picture(const image::ImagePicture& picture, const std::string& file) {
  nlohmann::json event{{"event", "picture"},
                       {"picture", picture.index},
                       {"seed", picture.seed},
                       {"token_hash", picture.token_hash}};
  if (!file.empty()) event["file"] = file;
  write(std::move(event));
}

void EventFile::check(const image::CheckOutcome& outcome) {
  write(
      {{"event", "check"}, {"picture", outcome.index}, {"tokens", outcome.tokens}, {"equal", outcome.equal}});
}

void EventFile::end(const image::ImageResult& result) {
  write({{"event", "end"},
         {"pictures", result.pictures.size()},
         {"forwards", result.statistics.forwards},
         {"interrupted", result.interrupted}});
}

}  // namespace volley::apps
