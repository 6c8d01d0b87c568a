#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace volley::test {

// Whether a value is valid by a schema (the keywords that compile_json_schema takes; any other throws), by
// the words of the standard. `root` is what references begin at.
bool is_valid(const nlohmann::json& value, const nlohmann::json& schema, const nlohmann::json& root);

}  // namespace volley::test
