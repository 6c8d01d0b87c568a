// TextResult as the `--json` object of schema volley.text/1, both ways.
#include <algorithm>
#include <array>

#include "core/base/error.h"
#include "core/io/untrusted_text.h"
#include "text/text_job.h"

namespace volley::text {
namespace {

double ratio(int64_t part, int64_t whole) {
  return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0.0;
}

// What is counted under "draft" has run.
bool has_drafter(const TextRequest& request) {
  return !request.draft_model.empty() || !request.heads.empty();
}

nlohmann::json statistics_json(const TextResult& result) {
  const Statistics& statistics = result.statistics;
  nlohmann::json accepted = nlohmann::json::object();
  for (const auto& [length, times] : statistics.accepted) accepted[std::to_string(length)] = times;
  nlohmann::json json{{"forwards", statistics.forwards},
                      {"prompt_forwards", statistics.prompt_forwards},
                      {"rows", statistics.rows},
                      {"prompt_rows", statistics.prompt_rows},
                      {"prompt_rows_kept", statistics.prompt_rows_kept},
                      {"tokens", statistics.tokens},
                      // Of an answer: what the batch does to the counts above is left out.
                      {"tokens_per_forward", ratio(result.forward_tokens(), result.forwards())},
                      {"rows_per_forward", ratio(result.rows(), result.forwards())},
                      {"accepted", accepted},
                      {"drafts",
                       {{"steps", statistics.steps},
                        {"steps_off", statistics.steps_off},
                        {"tokens", statistics.drafted_tokens},
                        {"right", statistics.right_tokens}}},
                      {"seconds",
                       {{"load", result.load_seconds},
                        {"prompt", statistics.prompt_seconds},
                        {"decode", statistics.decode_seconds},
                        {"sample", statistics.sample_seconds},
                        {"check", result.check_seconds},
                        {"total", result.total_seconds}}},
                      {"peak_bytes", statistics.peak_bytes}};
  if (!has_drafter(result.request)) return json;
  json["draft"] = {{"forwards", statistics.draft_forwards},
                   {"prompt_forwards", statistics.draft_prompt_forwards},
                   {"rows", statistics.draft_rows},
                   {"prompt_rows", statistics.draft_prompt_rows},
                   {"seconds", statistics.draft_seconds}};
  return json;
}

void read_statistics(const JsonFields& fields, TextResult& result) {
  Statistics& statistics = result.statistics;
  const IntRange count{.low = 0};
  statistics.forwards = fields.integer("forwards", count);
  statistics.prompt_forwards = fields.integer("prompt_forwards", count);
  statistics.rows = fields.integer("rows", count);
  statistics.prompt_rows = fields.integer("prompt_rows", count);
  statistics.tokens = fields.integer("tokens", count);
  statistics.peak_bytes = fields.integer("peak_bytes", count);
  // Older records lack these.
  if (fields.has("prompt_rows_kept")) statistics.prompt_rows_kept = fields.integer("prompt_rows_kept", count);
  if (fields.has("drafts")) {
    const JsonFields drafts = fields.object("drafts");
    statistics.steps = drafts.integer("steps", count);
    statistics.steps_off = drafts.integer("steps_off", count);
    statistics.drafted_tokens = drafts.integer("tokens", count);
    statistics.right_tokens = drafts.integer("right", count);
  }
  if (has_drafter(result.request)) {
    const JsonFields draft = fields.object("draft");
    statistics.draft_forwards = draft.integer("forwards", count);
    statistics.draft_prompt_forwards = draft.integer("prompt_forwards", count);
    statistics.draft_rows = draft.integer("rows", count);
    statistics.draft_prompt_rows = draft.integer("prompt_rows", count);
    statistics.draft_seconds = draft.number("seconds");
  }
  const JsonFields accepted = fields.object("accepted");
  for (const auto& [length, times] : accepted.value().items())
    statistics.accepted[std::strtoll(length.c_str(), nullptr, 10)] = accepted.integer(length, count);
  const JsonFields seconds = fields.object("seconds");
  result.load_seconds = seconds.number("load");
  statistics.prompt_seconds = seconds.number("prompt");
  statistics.decode_seconds = seconds.number("decode");
  statistics.sample_seconds = seconds.number("sample");
  result.check_seconds = seconds.number("check");
  result.total_seconds = seconds.number("total");
}

Finish read_finish(const std::string& name, const std::string& subject) {
  for (const Finish finish : {Finish::kEndToken, Finish::kStopText, Finish::kLength, Finish::kContext,
                              Finish::kStopped, Finish::kComplete}) {
    if (name == finish_name(finish)) return finish;
  }
  throw Error(subject + ": key 'finish': unknown " + quote(name));
}

const nlohmann::json& list(const nlohmann::json& json, const char* key, const std::string& subject) {
  const auto found = json.find(key);
  if (found == json.end() || !found->is_array())
    throw Error(subject + ": key '" + key + "': expected a list");
  return *found;
}

template <typename Count>
int64_t sum(const std::vector<TextAnswer>& answers, Count count) {
  int64_t total = 0;
  for (const TextAnswer& answer : answers) total += count(answer);
  return total;
}

}  // namespace

bool TextResult::is_check_equal() const {
  return std::ranges::all_of(checks, &CheckOutcome::is_equal);
}

int64_t forward_tokens(const TextRequest& request, const TextAnswer& answer) {
  const bool has_prompt_token = decoder_class(request.decoder) != DecoderClass::kOwnModel;
  return std::ssize(answer.tokens) - (has_prompt_token ? 1 + answer.shifts : 0);
}

int64_t TextResult::forward_tokens() const {
  return sum(answers, [this](const TextAnswer& answer) { return text::forward_tokens(request, answer); });
}

int64_t TextResult::tokens() const {
  return sum(answers, [](const TextAnswer& answer) { return std::ssize(answer.tokens); });
}

int64_t TextResult::forwards() const {
  return sum(answers, [](const TextAnswer& answer) { return answer.forwards; });
}

int64_t TextResult::rows() const {
  return sum(answers, [](const TextAnswer& answer) { return answer.rows; });
}

int64_t TextResult::prompt_tokens() const {
  return sum(answers, [](const TextAnswer& answer) { return answer.prompt_tokens; });
}

nlohmann::json to_json(const TextResult& result) {
  nlohmann::json json{{"schema", kTextSchema},
                      {"volley", result.volley},
                      {"request", to_json(result.request)},
                      {"weights", result.weights},
                      {"device", result.device},
                      {"dtype", result.dtype},
                      {"threads", result.threads},
                      {"answers", nlohmann::json::array()},
                      {"statistics", statistics_json(result)},
                      {"interrupted", result.interrupted}};
  for (const TextAnswer& answer : result.answers) {
    json["answers"].push_back({{"index", answer.index},
                               {"seed", answer.seed},
                               {"text", answer.text},
                               {"finish", finish_name(answer.finish)},
                               {"prompt_tokens", answer.prompt_tokens},
                               {"tokens", answer.tokens},
                               {"token_hash", answer.token_hash},
                               {"forwards", answer.forwards},
                               {"rows", answer.rows}});
    if (result.request.constraint) json["answers"].back()["matches"] = answer.matches;
    if (!result.request.context_shift) continue;
    json["answers"].back()["prompt_dropped"] = answer.prompt_dropped;
    json["answers"].back()["shifts"] = answer.shifts;
  }
  if (result.request.check == Check::kNo) return json;
  json["checks"] = nlohmann::json::array();
  for (const CheckOutcome& check : result.checks) json["checks"].push_back(volley::to_json(check));
  return json;
}

TextResult read_text_result(const nlohmann::json& json, const std::string& subject) {
  const JsonFields fields(json, subject);
  const std::string schema = fields.text("schema");
  if (schema != kTextSchema) {
    throw Error(subject + ": key 'schema': expected " + std::string(kTextSchema) + ", found " +
                quote(schema));
  }
  TextResult result{.volley = fields.text("volley"),
                    .request = read_text_request(fields.object("request"), subject + ": request"),
                    .device = fields.text("device"),
                    .dtype = fields.text("dtype"),
                    .threads = fields.integer("threads", {.low = 0}),
                    .interrupted = fields.boolean("interrupted")};
  const JsonFields weights = fields.object("weights");
  for (const auto& [role, hash] : weights.value().items()) result.weights.emplace(role, weights.text(role));
  const IntRange count{.low = 0};
  const std::string of_answers = subject + ": answers";
  for (const nlohmann::json& entry : list(json, "answers", subject)) {
    const JsonFields answer(entry, of_answers);
    TextAnswer read{.index = answer.integer("index", count),
                    .seed = answer.natural("seed"),
                    .text = answer.text("text"),
                    .finish = read_finish(answer.text("finish"), of_answers),
                    .matches = !result.request.constraint || answer.boolean("matches"),
                    .prompt_tokens = answer.integer("prompt_tokens", count),
                    .token_hash = answer.text("token_hash"),
                    .forwards = answer.integer("forwards", count),
                    .rows = answer.integer("rows", count)};
    if (result.request.context_shift) {
      read.prompt_dropped = answer.integer("prompt_dropped", count);
      read.shifts = answer.integer("shifts", count);
    }
    for (const int64_t token : answer.integers("tokens", {0, INT32_MAX}))
      read.tokens.push_back(static_cast<int32_t>(token));
    result.answers.push_back(std::move(read));
  }
  read_statistics(fields.object("statistics"), result);
  if (result.request.check == Check::kNo) return result;
  for (const nlohmann::json& entry : list(json, "checks", subject))
    result.checks.push_back(read_check(JsonFields(entry, subject + ": checks")));
  return result;
}

}  // namespace volley::text
