#include "tests/unit/io/bad_files_collector.h"
#include "tests/unit/io/file_builders.h"
#include "tests/unit/io/gguf_builder.h"

namespace volley::test {
namespace {

std::string with_metadata(std::vector<std::pair<std::string, std::string>> metadata) {
  return GgufImage{.metadata = std::move(metadata)}.bytes();
}

std::string with_value(const std::string& value) {
  return with_metadata({{"k", value}});
}

std::string with_tensors(std::vector<GgufTensor> tensors) {
  return GgufImage{.tensors = std::move(tensors)}.bytes();
}

void gguf_headers(Collector& c) {
  c.gguf("no_header", "GGUF" + raw<uint32_t>(3) + raw<uint64_t>(0), "file of 16 bytes is too short");
  c.gguf("other_magic", "GGML" + std::string(60, '\0'), "does not begin with 'GGUF'");
  c.gguf("version_1", GgufImage{.version = 1}.bytes(), "GGUF version 1, expected 2 or 3");
  c.gguf("version_4", GgufImage{.version = 4}.bytes(), "GGUF version 4, expected 2 or 3");
  c.gguf("big_endian", GgufImage{.version = 0x03000000}.bytes(), "a big-endian file");
  c.gguf("entries_many", GgufImage{.entry_count = ~uint64_t{0}}.bytes(),
         "promises 18446744073709551615 metadata");
  c.gguf("tensors_many", GgufImage{.tensor_count = 1'000'001}.bytes(),
         "promises 1000001 tensors, the limit is");
  c.gguf("entries_absent", GgufImage{.entry_count = 100'000}.bytes(),
         "metadata entry 1 of 100000 has no name");
  c.gguf("tensors_absent", GgufImage{.tensor_count = 1'000'000}.bytes(), "tensor 1 of 1000000 has no name");
}

void gguf_metadata(Collector& c) {
  c.gguf("key_twice", with_metadata({{"k", gguf::u32(1)}, {"k", gguf::u32(1)}}), "metadata 'k' occurs twice");
  c.gguf("key_empty", with_metadata({{"", gguf::u32(1)}}), "metadata entry 1 of 1 has no name");
  c.gguf("key_not_utf8", with_metadata({{"\xff\n", gguf::u32(1)}}), R"(name '\xff\x0a' is not UTF-8)");
  c.gguf("key_long", with_metadata({{repeat("k", 65'536), gguf::u32(1)}}),
         "its name of 65536 bytes, the limit is");
  c.gguf("type_unknown", with_value(raw<uint32_t>(13)), "metadata 'k': type 13 is unknown");
  c.gguf("boolean_2", with_value(gguf::boolean(2)), "metadata 'k': a boolean of value 2");
  c.gguf("string_long", with_value(raw<uint32_t>(8) + gguf::bare_text("x", 1'000'000)),
         "a string of 1000000 bytes reaches past the end");
  c.gguf("string_all_ones", with_value(raw<uint32_t>(8) + gguf::bare_text("x", ~uint64_t{0})),
         "a string of 18446744073709551615 bytes, the limit is");
  c.gguf("array_all_ones", with_value(gguf::array(4, {}, ~uint64_t{0})),
         "an array of 18446744073709551615 values, the limit is 10000000");
  c.gguf("array_long", with_value(gguf::array(12, {}, 10'000'000)),
         "an array of 10000000 values reaches past");
  c.gguf("array_of_unknown", with_value(gguf::array(99, {})), "metadata 'k': type 99 is unknown");
  c.gguf("array_string_cut", with_value(gguf::array(8, {gguf::bare_text("ab", 999)})),
         "a string of 999 bytes");
  c.gguf("array_boolean_3", with_value(gguf::array(7, {std::string("\1"), std::string("\3")})),
         "a boolean of value 3");
  std::string nested = raw<uint32_t>(9);
  for (int i = 0; i < 9; ++i) nested += raw<uint32_t>(9) + raw<uint64_t>(1);
  c.gguf("array_nested", with_value(nested + raw<uint32_t>(4) + raw<uint64_t>(0)),
         "nested deeper than 8 levels");
  for (const uint32_t alignment : {0u, 4u, 24u, 1u << 21}) {
    c.gguf("alignment_" + std::to_string(alignment),
           with_metadata({{"general.alignment", gguf::u32(alignment)}}),
           "metadata 'general.alignment': expected a power of two from 8 to 1048576, found");
  }
  c.gguf("alignment_text", with_metadata({{"general.alignment", gguf::text("32")}}), "found '32'");
  c.gguf("split_text", with_metadata({{"split.count", gguf::text("2")}}), "'split.count', 'split.no' and");
  c.gguf("split_many", with_metadata({{"split.count", gguf::u32(1001)}}),
         "a model in 1001 parts, the limit is 1000");
  c.gguf("split_beyond", with_metadata({{"split.count", gguf::u16(2)}, {"split.no", gguf::u16(2)}}),
         "part 2, counted from 0, of 2");
}

void gguf_tensors(Collector& c) {
  const std::string four = counting_floats(4);
  const auto one = [&](GgufTensor tensor) { return with_tensors({std::move(tensor)}); };
  c.gguf(
      "tensor_twice",
      with_tensors({{.name = "a", .shape = {4}, .bytes = four}, {.name = "a", .shape = {4}, .bytes = four}}),
      "tensor 'a' occurs twice");
  c.gguf("tensor_nameless", one({.name = "", .shape = {4}, .bytes = four}), "tensor 1 of 1 has no name");
  c.gguf("tensor_not_utf8", one({.name = "\xc0", .shape = {4}, .bytes = four}),
         R"(name '\xc0' is not UTF-8)");
  c.gguf("tensor_5_dims", one({.name = "a", .shape = {1, 1, 1, 1, 4}, .bytes = four}),
         "has 5 dimensions, at most 4");
  c.gguf("tensor_many_dims", one({.name = "a", .shape = {4}, .bytes = four, .dims = ~0u}),
         "has 4294967295 dimensions");
  c.gguf("tensor_type_unknown", one({.name = "a", .type = 40, .shape = {4}, .bytes = four}),
         "tensor 'a': type 40 is unknown");
  c.gguf("tensor_type_gone", one({.name = "a", .type = 4, .shape = {4}, .bytes = four}), "type 4 is unknown");
  c.gguf("tensor_type_q2_k", one({.name = "a", .type = 10, .shape = {256}, .bytes = four}),
         "tensor 'a': type q2_k is not supported");
  c.gguf("tensor_extent_2_63", one({.name = "a", .shape = {uint64_t{1} << 63}, .bytes = four}),
         "is beyond 63 bits");
  c.gguf("tensor_product", one({.name = "a", .shape = {1u << 31, 1u << 31}, .bytes = four}),
         "overflows 64-bit sizes");
  c.gguf("tensor_product_blocks",
         one({.name = "a", .type = kGgufQ8_0, .shape = {uint64_t{1} << 54, 32}, .bytes = four}),
         "overflows 64-bit sizes");
  c.gguf("tensor_no_blocks", one({.name = "a", .type = kGgufQ4_1, .shape = {32, 33}, .bytes = four}),
         "tensor 'a': rows of 33 values are no whole blocks of 32, as q4_1 stores them");
  c.gguf("tensor_scalar_block", one({.name = "a", .type = kGgufQ4_0, .bytes = four}),
         "rows of 1 values are no whole");
  c.gguf("tensor_half_k_block", one({.name = "a", .type = 14, .shape = {2, 128}, .bytes = four}),
         "no whole blocks of 256, as q6_k");
  c.gguf("tensor_crooked", one({.name = "a", .shape = {1}, .bytes = four, .offset = 4}),
         "data offset 4 is no multiple of the alignment 32");
  c.gguf("tensor_beyond", one({.name = "a", .shape = {5}, .bytes = four}),
         "tensor 'a': f32 [5] at offset 0 takes 20 bytes, which reach past the data of 16 bytes");
  c.gguf("tensor_far_beyond", one({.name = "a", .shape = {4}, .bytes = four, .offset = ~uint64_t{31}}),
         "which reach past the data");
  c.gguf("tensor_block_beyond",
         one({.name = "a", .type = kGgufQ8_0, .shape = {1, 32}, .bytes = std::string(33, '\1')}),
         "q8_0 [1, 32] at offset 0 takes 34 bytes");
  c.gguf("tensor_overlap",
         with_tensors({{.name = "a", .shape = {16}, .bytes = counting_floats(16)},
                       {.name = "b", .shape = {8}, .bytes = counting_floats(8), .offset = 32}}),
         "tensor 'b': data at offset 32 overlap those of tensor 'a'");
  c.gguf("tensor_same_place",
         with_tensors({{.name = "a", .shape = {4}, .bytes = four},
                       {.name = "b", .shape = {4}, .bytes = four, .offset = 0}}),
         "overlap those of tensor");
}

}  // namespace

void bad_gguf(Collector& c) {
  gguf_headers(c);
  gguf_metadata(c);
  gguf_tensors(c);
}

}  // namespace volley::test
