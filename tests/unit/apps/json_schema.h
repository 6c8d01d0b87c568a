#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace volley::test {

// What is wrong with a value by a schema of docs/schema, or nothing ("volley.image.1.json"). Knows the
// keywords that the schemas use; any other is an error, so that none is passed over.
std::string schema_fault(const nlohmann::json& value, const std::string& schema_file);

}  // namespace volley::test
