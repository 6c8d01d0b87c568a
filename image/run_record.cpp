#include "image/run_record.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/io/byte_reader.h"
#include "core/io/untrusted_text.h"

namespace volley::image {
namespace {

bool is_sha256(std::string_view text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

std::string read_hash(const JsonFields& fields, std::string_view key, const std::string& subject) {
  const std::string hash = fields.text(key);
  if (!is_sha256(hash)) {
    throw Error(subject + ": key '" + std::string(key) + "': expected a SHA-256, found " + quote(hash));
  }
  return hash;
}

}  // namespace

nlohmann::json to_json(const RunRecord& record) {
  nlohmann::json json = to_json(record.request);
  json.erase("only");   // the pictures say it
  json.erase("check");  // changes nothing
  json["schema"] = kRunSchema;
  json["volley"] = record.volley;
  json["job"] = "image";
  json["weights"] = record.weights;
  json["device"] = record.device;
  json["dtype"] = record.dtype;
  json["width"] = record.width;
  json["height"] = record.height;
  if (record.tokens > 0) json["tokens"] = record.tokens;
  json["columns"] = record.layout.columns;
  json["rows"] = record.layout.rows;
  json["pictures"] = nlohmann::json::array();
  for (const RecordedPicture& picture : record.pictures) {
    json["pictures"].push_back(
        {{"index", picture.index}, {"seed", picture.seed}, {"token_hash", picture.token_hash}});
  }
  return json;
}

RunRecord read_run_record(const nlohmann::json& json, const std::string& subject) {
  const JsonFields fields(json, subject);
  const std::string schema = fields.text("schema");
  if (schema != kRunSchema) {
    throw Error(subject + ": key 'schema': expected " + std::string(kRunSchema) + ", found " + quote(schema));
  }
  if (fields.text("job") != "image") throw Error(subject + ": key 'job': expected image");
  if (fields.has("only")) {
    throw Error(subject + ": key 'only': is of requests; a run record's pictures say which they are");
  }
  RunRecord record{.volley = fields.text("volley"),
                   .request = read_request(fields, subject),
                   .device = fields.text("device"),
                   .dtype = fields.text("dtype"),
                   .width = fields.integer("width", {1, 1 << 20}),
                   .height = fields.integer("height", {1, 1 << 20}),
                   .tokens = fields.integer_or("tokens", 0, {0, 1 << 24}),
                   .layout = {.columns = fields.integer("columns", {1, 1 << 20}),
                              .rows = fields.integer("rows", {1, 1 << 20})}};
  const JsonFields weights = fields.object("weights");
  for (const auto& [role, hash] : weights.value().items()) {
    record.weights.emplace(role, read_hash(weights, role, subject + ": weights"));
  }
  const auto pictures = json.find("pictures");
  if (pictures == json.end() || !pictures->is_array() || pictures->empty()) {
    throw Error(subject + ": key 'pictures': expected a list of at least one");
  }
  for (const nlohmann::json& entry : *pictures) {
    const JsonFields picture(entry, subject + ": pictures");
    const int64_t index = picture.integer("index", {0, kMaxCount - 1});
    if (index >= record.request.count) {
      throw Error(subject + ": key 'count': " + std::to_string(record.request.count) +
                  " in the run, but the file holds picture " + std::to_string(index));
    }
    record.pictures.push_back({.index = index,
                               .seed = read_seed(picture),
                               .token_hash = read_hash(picture, "token_hash", subject + ": pictures")});
  }
  const auto unordered =
      std::ranges::adjacent_find(record.pictures, std::ranges::greater_equal{}, &RecordedPicture::index);
  if (unordered != record.pictures.end()) {
    throw Error(subject + ": key 'pictures': expected increasing 'index'");
  }
  const int64_t cells = record.layout.columns * record.layout.rows;
  if (record.pictures.back().index - record.pictures.front().index >= cells) {
    throw Error(subject + ": key 'pictures': more than the " + std::to_string(cells) + " cells of the grid");
  }
  return record;
}

}  // namespace volley::image
