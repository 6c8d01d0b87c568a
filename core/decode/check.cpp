#include "core/decode/check.h"

#include <algorithm>

#include "core/base/sha256.h"

namespace volley {

CheckOutcome compare_outputs(int64_t index, const GenerationOutput& made,
                             const GenerationOutput& sequential) {
  CheckOutcome outcome{.index = index,
                       .tokens = std::ssize(sequential.tokens),
                       .forwards = made.forwards,
                       .sequential_forwards = sequential.forwards};
  const size_t longest = std::max(made.tokens.size(), sequential.tokens.size());
  for (size_t i = 0; i < longest; ++i) {
    const int32_t token = i < made.tokens.size() ? made.tokens[i] : -1;
    const int32_t expected = i < sequential.tokens.size() ? sequential.tokens[i] : -1;
    if (token == expected) {
      ++outcome.equal;
    } else if (outcome.position < 0) {
      outcome.position = static_cast<int64_t>(i);
      outcome.token = token;
      outcome.sequential_token = expected;
    }
  }
  return outcome;
}

nlohmann::json to_json(const CheckOutcome& check) {
  nlohmann::json json{{"index", check.index},
                      {"tokens", check.tokens},
                      {"equal", check.equal},
                      {"forwards", check.forwards},
                      {"sequential_forwards", check.sequential_forwards}};
  if (!check.is_equal()) {
    json["first_difference"] = {
        {"position", check.position}, {"token", check.token}, {"sequential_token", check.sequential_token}};
  }
  return json;
}

CheckOutcome read_check(const JsonFields& fields) {
  const IntRange count{.low = 0}, token{INT32_MIN, INT32_MAX};
  CheckOutcome outcome{.index = fields.integer("index", count),
                       .tokens = fields.integer("tokens", count),
                       .equal = fields.integer("equal", count),
                       .forwards = fields.integer("forwards", count),
                       .sequential_forwards = fields.integer("sequential_forwards", count)};
  if (fields.has("first_difference")) {
    const JsonFields first = fields.object("first_difference");
    outcome.position = first.integer("position", count);
    outcome.token = static_cast<int32_t>(first.integer("token", token));
    outcome.sequential_token = static_cast<int32_t>(first.integer("sequential_token", token));
  }
  return outcome;
}

std::string hash_tokens(std::span<const int32_t> tokens) {
  return sha256_hex(std::as_bytes(tokens));
}

}  // namespace volley
