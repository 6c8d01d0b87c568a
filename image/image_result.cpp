// ImageResult as the `--json` object of schema volley.image/1, both ways.
#include "core/base/error.h"
#include "core/io/untrusted_text.h"
#include "image/image_job.h"

namespace volley::image {
namespace {

double ratio(int64_t part, int64_t whole) {
  return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0.0;
}

nlohmann::json statistics_json(const ImageResult& result) {
  const Statistics& statistics = result.statistics;
  int64_t tokens = 0, forwards = 0, rows = 0;
  for (const PictureInfo& picture : result.pictures) {
    tokens += picture.tokens;
    forwards += picture.forwards;
    rows += picture.rows;
  }
  nlohmann::json accepted = nlohmann::json::object();
  for (const auto& [length, times] : statistics.accepted) accepted[std::to_string(length)] = times;
  return {{"forwards", statistics.forwards},
          {"prompt_forwards", statistics.prompt_forwards},
          {"rows", statistics.rows},
          {"prompt_rows", statistics.prompt_rows},
          {"tokens", statistics.tokens},
          // Of a picture: what the batch does to the counts above is left out.
          {"tokens_per_forward", ratio(tokens, forwards)},
          {"rows_per_forward", ratio(rows, forwards)},
          {"accepted", accepted},
          {"seconds",
           {{"load", result.load_seconds},
            {"prompt", statistics.prompt_seconds},
            {"decode", statistics.decode_seconds},
            {"sample", statistics.sample_seconds},
            {"pixels", result.pixels_seconds},
            {"check", result.check_seconds},
            {"render", result.render_seconds},
            {"total", result.total_seconds}}},
          {"peak_bytes", statistics.peak_bytes}};
}

const nlohmann::json& list(const nlohmann::json& json, const char* key, const std::string& subject) {
  const auto found = json.find(key);
  if (found == json.end() || !found->is_array())
    throw Error(subject + ": key '" + key + "': expected a list");
  return *found;
}

void read_statistics(const JsonFields& fields, ImageResult& result) {
  Statistics& statistics = result.statistics;
  const IntRange count{.low = 0};
  statistics.forwards = fields.integer("forwards", count);
  statistics.prompt_forwards = fields.integer("prompt_forwards", count);
  statistics.rows = fields.integer("rows", count);
  statistics.prompt_rows = fields.integer("prompt_rows", count);
  statistics.tokens = fields.integer("tokens", count);
  statistics.peak_bytes = fields.integer("peak_bytes", count);
  const JsonFields accepted = fields.object("accepted");
  for (const auto& [length, times] : accepted.value().items()) {
    statistics.accepted[std::strtoll(length.c_str(), nullptr, 10)] = accepted.integer(length, count);
  }
  const JsonFields seconds = fields.object("seconds");
  result.load_seconds = seconds.number("load");
  statistics.prompt_seconds = seconds.number("prompt");
  statistics.decode_seconds = seconds.number("decode");
  statistics.sample_seconds = seconds.number("sample");
  result.pixels_seconds = seconds.number("pixels");
  result.check_seconds = seconds.number("check");
  result.render_seconds = seconds.number("render");
  result.total_seconds = seconds.number("total");
}

}  // namespace

nlohmann::json to_json(const ImageResult& result) {
  nlohmann::json json{{"schema", kImageSchema},
                      {"volley", result.volley},
                      {"request", to_json(result.request)},
                      {"weights", result.weights},
                      {"device", result.device},
                      {"dtype", result.dtype},
                      {"threads", result.threads},
                      {"pictures", nlohmann::json::array()},
                      {"statistics", statistics_json(result)},
                      {"interrupted", result.interrupted}};
  for (const PictureInfo& picture : result.pictures) {
    nlohmann::json entry{{"index", picture.index},           {"seed", picture.seed},
                         {"token_hash", picture.token_hash}, {"tokens", picture.tokens},
                         {"forwards", picture.forwards},     {"rows", picture.rows}};
    if (!picture.file.empty()) entry["file"] = picture.file;
    if (picture.device != result.device) entry["device"] = picture.device;
    json["pictures"].push_back(std::move(entry));
  }
  if (result.request.check == Check::kNo) return json;
  json["checks"] = nlohmann::json::array();
  for (const CheckOutcome& check : result.checks) json["checks"].push_back(volley::to_json(check));
  return json;
}

ImageResult read_image_result(const nlohmann::json& json, const std::string& subject) {
  const JsonFields fields(json, subject);
  const std::string schema = fields.text("schema");
  if (schema != kImageSchema) {
    throw Error(subject + ": key 'schema': expected " + std::string(kImageSchema) + ", found " +
                quote(schema));
  }
  ImageResult result{.volley = fields.text("volley"),
                     .request = read_request(fields.object("request"), subject + ": request"),
                     .device = fields.text("device"),
                     .dtype = fields.text("dtype"),
                     .threads = fields.integer("threads", {.low = 0}),
                     .interrupted = fields.boolean("interrupted")};
  const JsonFields weights = fields.object("weights");
  for (const auto& [role, hash] : weights.value().items()) result.weights.emplace(role, weights.text(role));
  const IntRange count{.low = 0};
  for (const nlohmann::json& entry : list(json, "pictures", subject)) {
    const JsonFields picture(entry, subject + ": pictures");
    result.pictures.push_back({.index = picture.integer("index", count),
                               .seed = read_seed(picture),
                               .token_hash = picture.text("token_hash"),
                               .tokens = picture.integer("tokens", count),
                               .forwards = picture.integer("forwards", count),
                               .rows = picture.integer("rows", count),
                               .file = picture.text_or("file", ""),
                               .device = picture.text_or("device", result.device)});
  }
  read_statistics(fields.object("statistics"), result);
  if (result.request.check == Check::kNo) return result;
  for (const nlohmann::json& entry : list(json, "checks", subject))
    result.checks.push_back(read_check(JsonFields(entry, subject + ": checks")));
  return result;
}

}  // namespace volley::image
