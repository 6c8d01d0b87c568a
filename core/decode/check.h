#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "core/decode/generation.h"
#include "core/io/json.h"

namespace volley {

// How an output's tokens compare with those of sequential decoding.
struct CheckOutcome {
  int64_t index = 0;   // of the output, the caller's to fill in
  int64_t tokens = 0;  // that sequential decoding gave
  int64_t equal = 0;
  int64_t forwards = 0;  // of the method
  int64_t sequential_forwards = 0;
  // First difference, if any; a token that one of the two lacks is -1.
  int64_t position = -1;
  int32_t token = -1;
  int32_t sequential_token = -1;

  bool is_equal() const { return position < 0; }
  bool operator==(const CheckOutcome&) const = default;
};

CheckOutcome compare_outputs(int64_t index, const GenerationOutput& made, const GenerationOutput& sequential);

// One entry of a result's "checks". `read_check` throws Error "<subject>: key ...".
nlohmann::json to_json(const CheckOutcome& check);
CheckOutcome read_check(const JsonFields& fields);

// SHA-256 of the token ids as little-endian 32-bit integers.
std::string hash_tokens(std::span<const int32_t> tokens);

}  // namespace volley
