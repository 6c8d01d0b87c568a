// Downloads of published weights. Ref: RFC 9110 (ranges, If-Range); huggingface_hub, file_download.py, for
// the headers X-Linked-ETag and X-Linked-Size that the hub sends with its redirects.
#include "apps/download.h"

#include <charconv>
#include <optional>

#include "apps/console.h"
#include "apps/http_get.h"
#include "apps/part_file.h"
#include "apps/repo_revision.h"
#include "apps/verbs.h"
#include "core/io/file_hash.h"
#include "core/io/untrusted_text.h"

namespace volley::apps {
namespace {

bool is_sha256(std::string_view text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// "abc" of "\"abc\"" and "W/\"abc\"".
std::string etag_value(std::string_view etag) {
  if (etag.starts_with("W/")) etag.remove_prefix(2);
  if (etag.size() >= 2 && etag.front() == '"' && etag.back() == '"') etag = etag.substr(1, etag.size() - 2);
  return std::string(etag);
}

std::optional<int64_t> parse_count(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0) return std::nullopt;
  return value;
}

std::optional<int64_t> count_in(const httplib::Response& response, const char* header) {
  return response.has_header(header) ? parse_count(response.get_header_value(header)) : std::nullopt;
}

// "bytes 100-999/1000": where the piece starts and how long the whole is; "bytes */1000" has no start.
struct ContentRange {
  std::optional<int64_t> start;
  std::optional<int64_t> total;
};
ContentRange content_range(const httplib::Response& response) {
  std::string text = response.get_header_value("Content-Range");
  if (!text.starts_with("bytes ")) return {};
  text.erase(0, 6);
  const size_t slash = text.find('/');
  if (slash == std::string::npos) return {};
  return {.start = parse_count(std::string_view(text).substr(0, std::min(text.find('-'), slash))),
          .total = parse_count(std::string_view(text).substr(slash + 1))};
}

// What a later attempt can name these contents by.
std::string validator_of(const httplib::Response& response) {
  const std::string etag = response.get_header_value("ETag");
  if (!etag.empty() && !etag.starts_with("W/")) return etag;
  return response.get_header_value("Last-Modified");
}

class Download {
 public:
  Download(const DownloadRequest& request, const DownloadControl& control)
      : request_(request), control_(control), part_(request.path + ".part") {
    if (part_.size() > 0 && part_.identity().validator.empty()) part_.restart();
  }

  DownloadResult run() {
    result_.resumed_at = part_.size();
    // One fresh start, if what is there turns out to be of other contents.
    if (!fetch()) {
      note("is no longer the file that was begun, starting again");
      part_.restart();
      result_.resumed_at = 0;
      if (!fetch()) throw Error(request_.url.text() + ": changes while it is read");
    }
    if (total_ > 0 && part_.size() != total_) {
      throw Error(request_.url.text() + ": ended after " + std::to_string(part_.size()) + " of " +
                  std::to_string(total_) + " bytes; run it again to go on");
    }
    return verify();
  }

 private:
  // Follows redirects to the bytes and appends them. False: those at hand are of other contents.
  bool fetch() {
    Url url = request_.url;
    hub_ = {};
    total_ = 0;
    for (int hop = 0; hop <= kMostRedirects; ++hop) {
      std::string location;
      const Outcome outcome = get(url, location);
      if (outcome == Outcome::kDone) return true;
      if (outcome == Outcome::kOther) return false;
      url = redirected(url, location);
    }
    throw Error(request_.url.text() + ": more than " + std::to_string(kMostRedirects) + " redirects");
  }

  enum class Outcome { kDone, kRedirect, kOther };

  httplib::Headers headers_for(const Url& url) const {
    httplib::Headers headers;
    if (!request_.token.empty() && url.origin() == request_.url.origin() && url.is_private())
      headers.emplace("Authorization", "Bearer " + request_.token);
    if (part_.size() > 0) {
      headers.emplace("Range", "bytes=" + std::to_string(part_.size()) + "-");
      headers.emplace("If-Range", part_.identity().validator);
    }
    return headers;
  }

  Outcome get(const Url& url, std::string& location) {
    Outcome outcome = Outcome::kDone;
    const httplib::Headers headers = headers_for(url);
    const HttpEnd end = http_get({.url = url,
                                  .headers = headers,
                                  .stop = control_.stop,
                                  .on_head =
                                      [&](const httplib::Response& response) {
                                        outcome = judge(url, response, location);
                                        return outcome == Outcome::kDone && response.status != 416;
                                      },
                                  .on_bytes = [&](std::string_view bytes) { take(bytes); }});
    if (end.is_stopped) {
      throw Interrupted(request_.url.text() + ": interrupted; " + byte_count(part_.size()) +
                        " are kept, run it again to go on");
    }
    if (!end.fault.empty()) {
      throw Error(
          url.text() + ": " + end.fault +
          (part_.size() > 0 ? "; " + byte_count(part_.size()) + " are kept, run it again to go on" : ""));
    }
    return outcome;
  }

  // What an answer means; prepares the part for its bytes. Throws Error for refusals.
  Outcome judge(const Url& url, const httplib::Response& response, std::string& location) {
    const int status = response.status;
    hear_revision(url, response);
    if (response.has_header("X-Linked-ETag")) {
      hub_ = etag_value(response.get_header_value("X-Linked-ETag"));
      total_ = count_in(response, "X-Linked-Size").value_or(0);
    }
    if (is_redirect(status)) {
      location = response.get_header_value("Location");
      if (part_.size() > 0 && part_.identity().hub != hub_) return Outcome::kOther;
      return Outcome::kRedirect;
    }
    if (status == 401 || status == 403) {
      throw Error(url.text() + ": access is refused (" + std::to_string(status) + "); " + request_.help,
                  ErrorKind::kModelMissing);
    }
    if (status == 404 || status == 410)
      throw NotThere(url.text() + ": not there (" + std::to_string(status) + ")");
    if (status == 416 && part_.size() > 0) {
      return content_range(response).total == part_.size() ? Outcome::kDone : Outcome::kOther;
    }
    if (status != 200 && status != 206)
      throw Error(url.text() + ": the server answers " + std::to_string(status));
    return start_body(url, response) ? Outcome::kDone : Outcome::kOther;
  }

  // The word of the address asked for: hosts that it redirects to know of no repository.
  void hear_revision(const Url& url, const httplib::Response& response) const {
    if (!request_.on_revision || url.origin() != request_.url.origin()) return;
    const std::string commit = commit_or_nothing(response.get_header_value(kRevisionHeader));
    if (!commit.empty()) request_.on_revision(commit);
  }

  bool start_body(const Url& url, const httplib::Response& response) {
    const std::string validator = validator_of(response);
    if (response.status == 206) {
      const ContentRange range = content_range(response);
      if (range.start != part_.size() || validator != part_.identity().validator) return false;
      if (range.total) set_total(url, *range.total);
    } else {
      if (part_.size() > 0) {
        note("is sent from its start: it changed, or the server cannot go on within a file");
        part_.restart();
        result_.resumed_at = 0;
      }
      if (const auto length = count_in(response, "Content-Length")) set_total(url, *length);
    }
    part_.require_room(total_ - part_.size());
    part_.set_identity({.hub = hub_, .validator = validator});
    return true;
  }

  void set_total(const Url& url, int64_t total) {
    if (total_ > 0 && total_ != total) {
      throw Error(url.text() + ": " + std::to_string(total) + " bytes, but the hub speaks of " +
                  std::to_string(total_));
    }
    total_ = total;
  }

  void take(std::string_view bytes) {
    if (total_ > 0 && static_cast<int64_t>(bytes.size()) > total_ - part_.size())
      throw Error(request_.url.text() + ": sends more than its " + std::to_string(total_) + " bytes");
    part_.append(bytes);
    if (control_.on_progress) control_.on_progress(part_.size(), total_);
  }

  DownloadResult verify() {
    result_.bytes = part_.size();
    result_.sha256 = FileHash({part_.path()}).hex();
    std::string expected = request_.sha256;
    if (expected.empty() && is_sha256(hub_)) expected = hub_;
    result_.is_verified = !expected.empty();
    if (result_.is_verified && result_.sha256 != expected) {
      part_.remove();
      throw Error(request_.url.text() + ": SHA-256 expected " + expected + ", found " + result_.sha256 +
                  "; what came was thrown away");
    }
    part_.finish(request_.path);
    return result_;
  }

  void note(const std::string& what) const {
    if (control_.on_note) control_.on_note(request_.url.text() + " " + what);
  }

  const DownloadRequest& request_;
  const DownloadControl& control_;
  PartFile part_;
  DownloadResult result_;
  std::string hub_;    // of the attempt going on
  int64_t total_ = 0;  // bytes of the whole file; 0: not known
};

}  // namespace

DownloadResult download(const DownloadRequest& request, const DownloadControl& control) {
  return Download(request, control).run();
}

}  // namespace volley::apps
