#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "core/io/published_files.h"
#include "image/checkpoint.h"

namespace volley::image {

// A checkpoint as its authors publish it.
struct PublishedModel {
  std::string_view name;        // "llamagen-c2i-l-384"
  std::string_view repository;  // on the hub
  std::string_view file;        // there
  CheckpointKind kind = CheckpointKind::kLlamaGenClass;
  std::string_view size;     // "L"; empty: a tokenizer
  int64_t image_size = 0;    // pixels of a side that it was trained for; 0: a tokenizer
  std::string_view vq;       // name of the tokenizer it needs; empty: none
  std::string_view licence;  // as the repository or the authors' code states it
  std::string_view sha256;   // empty: not known here, the server's counts
};
std::span<const PublishedModel> published_models();

// Null if there is none of that name, or of that file name.
const PublishedModel* find_published_model(std::string_view name);
const PublishedModel* find_published_file(std::string_view file);

// Where it is had.
PublishedFiles published_files(const PublishedModel& model);

}  // namespace volley::image
