#pragma once

#include "apps/verbs.h"

namespace volley::apps {

inline constexpr std::string_view kModelsSchema = "volley.models/1";
inline constexpr std::string_view kPullSchema = "volley.pull/1";
inline constexpr std::string_view kConvertSchema = "volley.convert/1";
inline constexpr std::string_view kSelftestSchema = "volley.selftest/1";

// Verbs of `volley models`, one file each.
Verb add_models_convert(CLI::App& models);
Verb add_models_info(CLI::App& models);
Verb add_models_list(CLI::App& models);
Verb add_models_pull(CLI::App& models);
Verb add_models_remove(CLI::App& models);
Verb add_models_selftest(CLI::App& models);

// Text and spaces up to a column.
std::string padded(std::string text, size_t width);

}  // namespace volley::apps
