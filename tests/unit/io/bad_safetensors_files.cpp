#include "tests/unit/io/bad_files_collector.h"
#include "tests/unit/io/file_builders.h"

namespace volley::test {
namespace {

void safetensors_frames(Collector& c) {
  const std::string data(22, '\1');
  const std::string good = safetensors_bytes(kGoodHeader, data);
  for (const size_t size : {1, 4, 7}) {
    c.safetensors("cut_to_" + std::to_string(size), good.substr(0, size),
                  "too short for a safetensors header");
  }
  for (const size_t size : {8, 9, 30, 100}) {
    c.safetensors("cut_to_" + std::to_string(size), good.substr(0, size), "reaches past the end of the file");
  }
  c.safetensors("cut_at_data", good.substr(0, good.size() - 22),
                "'a': data_offsets [0, 16] reach past the data");
  c.safetensors("cut_by_one", good.substr(0, good.size() - 1),
                "'b': data_offsets [16, 22] reach past the data");
  c.safetensors("header_length_2_63", safetensors_bytes(kGoodHeader, data, uint64_t{1} << 63),
                "over the limit");
  c.safetensors("header_length_limit", safetensors_bytes(kGoodHeader, data, 100'000'001), "over the limit");
  c.safetensors("header_length_all_ones", safetensors_bytes(kGoodHeader, data, ~uint64_t{0}),
                "over the limit");
  c.safetensors("header_length_zero", safetensors_bytes("", data), "does not begin with '{'");
  c.safetensors("header_length_short", safetensors_bytes(kGoodHeader, data, 20), "JSON: parse error");
  c.safetensors("header_length_long", safetensors_bytes(kGoodHeader, data, kGoodHeader.size() + 3),
                "JSON: parse error");
  c.safetensors("header_space_first", safetensors_bytes(" " + kGoodHeader, data), "does not begin with '{'");
  c.safetensors("header_list", safetensors_bytes("[1]", ""), "does not begin with '{'");
  c.safetensors("header_nul", safetensors_bytes(std::string("{\"a\":\0}", 7), ""), "JSON: parse error");
  c.safetensors("header_not_utf8", safetensors_bytes("{\"\xff\xfe\":1}", ""), "UTF-8");
  c.safetensors("header_nested", safetensors_bytes("{\"a\":" + repeat("[", 100) + repeat("]", 100) + "}", ""),
                "nested deeper than 64 levels");
  c.safetensors("header_nested_unclosed", safetensors_bytes("{\"a\":" + repeat("[", 200'000), ""),
                "nested deeper than 64 levels");
  c.safetensors("header_number", safetensors_bytes("{\"a\":1e999}", ""), "number overflow");
}

// A header of one tensor "a" with these fields.
std::string one_tensor(const std::string& fields, size_t bytes = 16) {
  return safetensors_bytes("{\"a\":{" + fields + "}}", std::string(bytes, '\1'));
}

void safetensors_entries(Collector& c) {
  c.safetensors("twin_tensor", safetensors_bytes("{\"a\":{},\"a\":{}}", ""), "duplicate key 'a'");
  c.safetensors("twin_field", one_tensor(R"("dtype":"F32","dtype":"F16")"), "duplicate key 'dtype'");
  c.safetensors("entry_null", safetensors_bytes("{\"a\":null}", ""), "tensor 'a': expected an object");
  c.safetensors("entry_list", safetensors_bytes("{\"a\":[]}", ""), "tensor 'a': expected an object");
  c.safetensors("name_two_lines", safetensors_bytes(R"({"a\nb\u001b[2J":null})", ""),
                R"(tensor 'a\x0ab\x1b[2J')");
  c.safetensors("name_long", safetensors_bytes("{\"" + repeat("x", 5000) + "\":null}", ""), "xxx...'");
  c.safetensors("dtype_f8", one_tensor(R"("dtype":"F8_E4M3","shape":[16],"data_offsets":[0,16])"),
                "dtype 'F8_E4M3' is not supported");
  c.safetensors("dtype_lower", one_tensor(R"("dtype":"f32","shape":[4],"data_offsets":[0,16])"),
                "dtype 'f32' is not supported");
  c.safetensors("dtype_number", one_tensor(R"("dtype":32,"shape":[4],"data_offsets":[0,16])"),
                "dtype is missing");
  c.safetensors("dtype_absent", one_tensor(R"("shape":[4],"data_offsets":[0,16])"), "dtype is missing");
  c.safetensors("shape_absent", one_tensor(R"("dtype":"F32","data_offsets":[0,16])"), "shape is missing");
  c.safetensors("shape_number", one_tensor(R"("dtype":"F32","shape":4,"data_offsets":[0,16])"),
                "shape is missing");
  const std::pair<const char*, std::pair<const char*, const char*>> shapes[] = {
      {"negative", {"[-2,-2]", "negative extent, -2"}},
      {"float", {"[4.0]", "shape holds 4.0"}},
      {"text", {"[\"4\"]", "shape holds \"4\""}},
      {"2_63", {"[9223372036854775808]", "shape holds 9223372036854775808"}},
      {"1e30", {"[1e30]", "shape holds 1e+30"}},
      {"overflow", {"[4294967296,4294967296]", "overflows 64-bit sizes"}},
      {"overflow_bytes", {"[4611686018427387904]", "overflows 64-bit sizes"}},
      {"wraps_to_16", {"[4611686018427387908]", "overflows 64-bit sizes"}},
      {"overflow_times_zero", {"[0,4294967296,4294967296]", "overflows 64-bit sizes"}},
      {"rank_7", {"[1,1,1,1,1,1,4]", "has 7 dimensions"}},
      {"too_small", {"[3]", "f32 [3] needs 12 bytes, data_offsets [0, 16] hold 16"}},
      {"too_large", {"[5]", "f32 [5] needs 20 bytes"}},
      {"empty", {"[0]", "f32 [0] needs 0 bytes"}}};
  for (const auto& [name, test] : shapes) {
    c.safetensors("shape_" + std::string(name),
                  one_tensor(std::string(R"("dtype":"F32","data_offsets":[0,16],"shape":)") + test.first),
                  test.second);
  }
  c.safetensors("shape_rank_100000",
                one_tensor(R"("dtype":"F32","data_offsets":[0,16],"shape":[4)" + repeat(",1", 99'999) + "]"),
                "has 100000 dimensions");
  const std::pair<const char*, std::pair<const char*, const char*>> offsets[] = {
      {"one", {"[0]", "two non-negative integers"}},
      {"three", {"[0,16,16]", "two non-negative integers"}},
      {"negative", {"[-16,0]", "two non-negative integers"}},
      {"float", {"[0.0,16.0]", "two non-negative integers"}},
      {"null", {"null", "two non-negative integers"}},
      {"object", {"{}", "two non-negative integers"}},
      {"backwards", {"[16,0]", "[16, 0] run backwards"}},
      {"past_end", {"[0,17]", "[0, 17] reach past the data, which has 16 bytes"}},
      {"all_ones", {"[0,18446744073709551615]", "reach past the data"}},
      {"2_64", {"[0,18446744073709551616]", "two non-negative integers"}}};
  for (const auto& [name, test] : offsets) {
    c.safetensors("offsets_" + std::string(name),
                  one_tensor(std::string(R"("dtype":"F32","shape":[4],"data_offsets":)") + test.first),
                  test.second);
  }
  c.safetensors("offsets_absent", one_tensor(R"("dtype":"F32","shape":[4])"), "two non-negative integers");
}

void safetensors_coverage(Collector& c) {
  const auto two = [](const char* first, const char* second) {
    return safetensors_bytes(std::string(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)") + first +
                                 R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)" + second + "}}",
                             std::string(8, '\1'));
  };
  c.safetensors("overlap", two("[0,4]", "[2,6]"),
                "tensor 'b' overlaps the tensor before it: begins at 2, expected 4");
  c.safetensors("same_place", two("[0,4]", "[0,4]"),
                "overlaps the tensor before it: begins at 0, expected 4");
  c.safetensors("hole_first", two("[4,8]", "[4,8]"),
                "tensor 'a' leaves a hole before it: begins at 4, expected 0");
  c.safetensors(
      "bytes_after",
      safetensors_bytes(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", std::string(5, '\1')),
      "1 bytes follow the last tensor");
  c.safetensors("hole_middle",
                safetensors_bytes(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                                  R"("b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
                                  "123"),
                "tensor 'b' leaves a hole before it");
  c.safetensors("data_without_tensors", safetensors_bytes("{}", "x"), "1 bytes follow the last tensor");
  c.safetensors("metadata_number", safetensors_bytes(R"({"__metadata__":{"epoch":1}})", ""),
                "value of 'epoch' is no string");
  c.safetensors("metadata_text", safetensors_bytes(R"({"__metadata__":"pt"})", ""),
                "__metadata__ is no object");
}

}  // namespace

void bad_safetensors(Collector& c) {
  safetensors_frames(c);
  safetensors_entries(c);
  safetensors_coverage(c);
}

}  // namespace volley::test
