// Pages of Python package indexes, which are anybody's bytes.
#include "apps/package_index.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>

#include "core/io/json.h"
#include "core/io/untrusted_text.h"

namespace volley::apps {
namespace {

using nlohmann::json;

constexpr size_t kMostFiles = 100'000;
constexpr const char* kTooMany = "names more than 100000 files";

std::string lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), [](unsigned char c) { return std::tolower(c); });
  return out;
}

bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f';
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

// A hash in lower case, or a fault: a wrong one must not pass for none.
Result<std::string> checked_sha256(std::string_view text, std::string_view file) {
  std::string hash = lower(text);
  if (hash.size() == 64 && hash.find_first_not_of("0123456789abcdef") == std::string::npos) return hash;
  return Fault{"file " + quote(file) + ": " + quote(text) + " is no SHA-256"};
}

// ---- JSON

// The text under a key; null if it is missing or of another type.
const std::string* text_of(const json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() ? nullptr : found->get_ptr<const std::string*>();
}

Result<IndexedFile> read_file(const json& entry) {
  if (!entry.is_object()) return Fault{"an entry of files is no object"};
  const std::string* name = text_of(entry, "filename");
  if (name == nullptr) return Fault{"an entry of files has no filename"};
  const std::string* url = text_of(entry, "url");
  if (url == nullptr) return Fault{"file " + quote(*name) + " has no url"};
  IndexedFile file{.name = *name, .url = *url};
  const auto hashes = entry.find("hashes");
  if (hashes == entry.end() || !hashes->is_object())
    return Fault{"file " + quote(*name) + " has no object hashes"};
  if (!hashes->contains("sha256")) return file;
  const std::string* stated = text_of(*hashes, "sha256");
  if (stated == nullptr) return Fault{"file " + quote(*name) + ": its sha256 is no text"};
  Result<std::string> sha256 = checked_sha256(*stated, *name);
  if (!sha256) return sha256.fault();
  file.sha256 = std::move(sha256).value();
  return file;
}

// ---- HTML

// Characters of the references that addresses and names are written with; others stay as they are.
std::string without_entities(std::string_view text) {
  constexpr std::array<std::pair<std::string_view, char>, 5> kNamed{
      {{"amp", '&'}, {"lt", '<'}, {"gt", '>'}, {"quot", '"'}, {"apos", '\''}}};
  constexpr size_t kLongestEntity = 9;
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t end =
        text[at] == '&' ? text.substr(at, kLongestEntity).find(';') : std::string_view::npos;  // from `at`
    if (end == std::string_view::npos) {
      out += text[at++];
      continue;
    }
    const std::string_view name = text.substr(at + 1, end - 1);
    int code = 0;
    if (name.starts_with('#')) {
      const bool is_hex = name.size() > 1 && (name[1] == 'x' || name[1] == 'X');
      const std::string_view digits = name.substr(is_hex ? 2 : 1);
      const auto [last, error] =
          std::from_chars(digits.data(), digits.data() + digits.size(), code, is_hex ? 16 : 10);
      if (error != std::errc() || last != digits.data() + digits.size() || code > 126) code = 0;
    } else {
      const auto found = std::ranges::find(kNamed, name, &std::pair<std::string_view, char>::first);
      if (found != kNamed.end()) code = found->second;
    }
    if (code < 32) {
      out += text[at++];
      continue;
    }
    out += static_cast<char>(code);
    at += end + 1;
  }
  return out;
}

// Walks over a page's tags.
class HtmlReader {
 public:
  explicit HtmlReader(std::string_view body) : rest_(body) {}

  // Moves behind the next start tag `a`. False: there is none. A fault: something opened does not end.
  Result<bool> next_anchor(std::string& href) {
    while (true) {
      const size_t open = rest_.find('<');
      if (open == std::string_view::npos) return false;
      rest_.remove_prefix(open);
      if (rest_.starts_with("<!--")) {
        const size_t end = rest_.find("-->");
        if (end == std::string_view::npos) return Fault{"a comment does not end"};
        rest_.remove_prefix(end + 3);
        continue;
      }
      rest_.remove_prefix(1);
      const bool is_anchor = rest_.size() > 1 && (rest_[0] == 'a' || rest_[0] == 'A') && is_space(rest_[1]);
      size_t name = 0;
      while (name < rest_.size() && !is_space(rest_[name]) && rest_[name] != '>') ++name;
      rest_.remove_prefix(name);
      href.clear();
      if (!read_attributes(href)) return Fault{"a tag does not end"};
      if (is_anchor) return true;
    }
  }
  // What stands up to the next tag.
  std::string_view text() const { return trimmed(rest_.substr(0, rest_.find('<'))); }

 private:
  // Up to behind the tag's '>'. The first href counts.
  bool read_attributes(std::string& href) {
    bool has_href = false;
    while (true) {
      while (!rest_.empty() && (is_space(rest_.front()) || rest_.front() == '/')) rest_.remove_prefix(1);
      if (rest_.empty()) return false;
      if (rest_.front() == '>') {
        rest_.remove_prefix(1);
        return true;
      }
      const size_t end = std::min(rest_.find_first_of("=> \t\n\r\f/", 1), rest_.size());
      const std::string name = lower(rest_.substr(0, end));
      rest_.remove_prefix(end);
      while (!rest_.empty() && is_space(rest_.front())) rest_.remove_prefix(1);
      if (!rest_.starts_with('=')) continue;
      rest_.remove_prefix(1);
      std::string_view value;
      if (!read_value(value)) return false;
      if (name == "href" && !std::exchange(has_href, true)) href = without_entities(trimmed(value));
    }
  }
  bool read_value(std::string_view& value) {
    while (!rest_.empty() && is_space(rest_.front())) rest_.remove_prefix(1);
    if (rest_.empty()) return false;
    const char quote = rest_.front();
    if (quote == '"' || quote == '\'') {
      const size_t end = rest_.find(quote, 1);
      if (end == std::string_view::npos) return false;
      value = rest_.substr(1, end - 1);
      rest_.remove_prefix(end + 1);
      return true;
    }
    const size_t end = std::min(rest_.find_first_of("> \t\n\r\f"), rest_.size());
    value = rest_.substr(0, end);
    rest_.remove_prefix(end);
    return true;
  }

  std::string_view rest_;
};

// "url#sha256=HEX", other fragments than that being of no use.
Result<IndexedFile> file_of(const std::string& href, std::string_view text) {
  IndexedFile file{.name = without_entities(text)};
  const size_t hash = std::min(href.find('#'), href.size());
  file.url = href.substr(0, hash);
  for (size_t begin = hash; begin < href.size();) {
    const size_t end = std::min(href.find('&', begin + 1), href.size());
    const std::string_view part = std::string_view(href).substr(begin + 1, end - begin - 1);
    if (part.starts_with("sha256=")) {
      Result<std::string> sha256 = checked_sha256(part.substr(7), file.name);
      if (!sha256) return sha256.fault();
      file.sha256 = std::move(sha256).value();
    }
    begin = end;
  }
  return file;
}

}  // namespace

Result<std::vector<IndexedFile>> parse_index_json(std::string_view body) {
  const Result<json> page = parse_json(body);
  if (!page) return page.fault();
  if (!page.value().is_object()) return Fault{"the page is no JSON object"};
  const auto meta = page.value().find("meta");
  const std::string* version =
      meta == page.value().end() || !meta->is_object() ? nullptr : text_of(*meta, "api-version");
  if (version == nullptr) return Fault{"the page states no api-version"};
  if (!version->starts_with("1.")) return Fault{"api-version " + quote(*version) + ": expected 1"};
  const auto files = page.value().find("files");
  if (files == page.value().end() || !files->is_array()) return Fault{"the page has no array files"};
  if (files->size() > kMostFiles) return Fault{kTooMany};
  std::vector<IndexedFile> found;
  for (const json& entry : *files) {
    Result<IndexedFile> file = read_file(entry);
    if (!file) return file.fault();
    found.push_back(std::move(file).value());
  }
  return found;
}

Result<std::vector<IndexedFile>> parse_index_html(std::string_view body) {
  HtmlReader reader(body);
  std::vector<IndexedFile> found;
  std::string href;
  while (true) {
    const Result<bool> is_there = reader.next_anchor(href);
    if (!is_there) return is_there.fault();
    if (!is_there.value()) return found;
    if (href.empty()) continue;
    if (found.size() == kMostFiles) return Fault{kTooMany};
    Result<IndexedFile> file = file_of(href, reader.text());
    if (!file) return file.fault();
    found.push_back(std::move(file).value());
  }
}

Result<std::vector<IndexedFile>> parse_index_page(std::string_view media_type, std::string_view body) {
  const std::string type = lower(media_type);
  if (type == "application/vnd.pypi.simple.v1+json" || type == "application/json")
    return parse_index_json(body);
  if (type == "application/vnd.pypi.simple.v1+html" || type == "text/html") return parse_index_html(body);
  return Fault{"answers with " + (type.empty() ? "no media type" : quote(type)) +
               ", no page of a package index"};
}

}  // namespace volley::apps
