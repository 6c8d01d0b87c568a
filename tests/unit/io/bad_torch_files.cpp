#include "tests/unit/io/bad_files_collector.h"
#include "tests/unit/io/file_builders.h"

namespace volley::test {
namespace {

namespace pk = pickle;

std::vector<ZipEntry> good_entries() {
  return torch_entries(pk::whole(pk::dict({{"w", torch_tensor({})}})), {{"0", counting_floats(4)}});
}

// The good archive with one member changed.
template <typename Change>
std::string with(const char* member, Change change) {
  std::vector<ZipEntry> entries = good_entries();
  for (ZipEntry& entry : entries) {
    if (entry.name == member) change(entry);
  }
  return zip_bytes(entries);
}

void zip_frames(Collector& c) {
  const std::string good = zip_bytes(good_entries());
  for (const size_t size :
       {size_t{4}, size_t{21}, size_t{22}, good.size() / 2, good.size() - 22, good.size() - 1}) {
    c.torch("zip_cut_to_" + std::to_string(size), good.substr(0, size), "no end-of-directory record");
  }
  c.torch("zip_bytes_after", good + "x", "no end-of-directory record");
  c.torch("zip_comment_without_end", zip_bytes(good_entries()).replace(good.size() - 2, 2, raw<uint16_t>(1)),
          "no end-of-directory record");
  // A comment that holds an end record of its own: the file's last bytes are what counts.
  c.torch("zip_comment_is_archive", zip_bytes(good_entries(), {.comment = zip_bytes({})}),
          "archive holds no data.pkl");
  c.torch("zip_prefixed", "#!/bin/sh\n" + good, "fewer members than its end record says");
  c.torch("zip_empty", zip_bytes({}), "archive holds no data.pkl");
  c.torch("zip_disk", zip_bytes(good_entries(), {.disk = 1}), "several disks");
  c.torch("zip_more_members", zip_bytes(good_entries(), {.members = 9}),
          "fewer members than its end record says");
  c.torch("zip_fewer_members", zip_bytes(good_entries(), {.members = 1}),
          "more members than its end record says");
  c.torch("zip_no_members", zip_bytes(good_entries(), {.members = 0}),
          "more members than its end record says");
  c.torch("zip_directory_past_end", zip_bytes(good_entries(), {.directory_offset = 0x7fffffff}),
          "reaches past its end record");
  c.torch("zip_directory_too_long", zip_bytes(good_entries(), {.directory_bytes = 0x7fffffff}),
          "reaches past its end record");
  c.torch("zip_directory_shifted", zip_bytes(good_entries(), {.directory_bytes = 46, .directory_offset = 1}),
          "fewer members than its end record says");
  c.torch("zip_directory_short", zip_bytes(good_entries(), {.directory_bytes = 50}),
          "directory entry is cut short");
}

void zip_members(Collector& c) {
  using Entry = ZipEntry;
  const char* weights = "model/data/0";
  c.torch("zip_crc_weights", with(weights, [](Entry& e) { e.crc = 1; }), "'data/0' has a wrong CRC");
  c.torch("zip_crc_pickle", with("model/data.pkl", [](Entry& e) { e.crc = 1; }),
          "'data.pkl' has a wrong CRC");
  c.torch("zip_crc_byteorder", with("model/byteorder", [](Entry& e) { e.crc = 1; }),
          "'byteorder' has a wrong CRC");
  c.torch("zip_compressed", with(weights, [](Entry& e) { e.method = 8; }), "is compressed (method 8)");
  c.torch("zip_compressed_pickle", with("model/data.pkl", [](Entry& e) { e.method = 93; }),
          "is compressed (method 93)");
  c.torch("zip_encrypted", with(weights, [](Entry& e) { e.flags = 1; }), "is encrypted");
  c.torch("zip_size_differs", with(weights, [](Entry& e) { e.plain_size = 17; }), "differs from size 17");
  c.torch("zip_size_past_end", with(weights, [](Entry& e) { e.plain_size = e.packed_size = 0x7fffffff; }),
          "size 2147483647 reaches past");
  c.torch("zip_size_into_next", with(weights, [](Entry& e) { e.plain_size = e.packed_size = 40; }),
          "member 'model/version' overlaps the one before it");
  c.torch("zip_offset_past_end", with(weights, [](Entry& e) { e.offset = 0x7fffffff; }),
          "no local header at offset");
  c.torch("zip_offset_shifted", with(weights, [](Entry& e) { e.offset = 5; }), "no local header at offset 5");
  c.torch("zip_offset_of_other", with(weights, [](Entry& e) { e.offset = 0; }),
          "local header names 'model/data.pkl'");
  c.torch("zip_local_name", with(weights, [](Entry& e) { e.local_name = "model/data/1"; }),
          "local header names 'model/data/1'");
  c.torch("zip64_no_extra", with(weights, [](Entry& e) { e.plain_size = e.packed_size = 0xffffffffu; }),
          "zip64 extra field is missing");
  c.torch("zip64_extra_short",
          with(weights,
               [](Entry& e) { e.plain_size = e.packed_size = 0xffffffffu, e.extra = zip64_extra({16}); }),
          "zip64 extra field is cut short");
  c.torch("zip64_extra_lies",
          with(weights,
               [](Entry& e) { e.plain_size = 0xffffffffu, e.extra = raw<uint16_t>(1) + raw<uint16_t>(99); }),
          "extra field is cut short");
  c.torch("zip64_size",
          with(weights,
               [](Entry& e) {
                 e.plain_size = e.packed_size = 0xffffffffu;
                 e.extra = zip64_extra({uint64_t{1} << 63, uint64_t{1} << 63});
               }),
          "size 9223372036854775808 reaches past");
  c.torch("zip64_offset",
          with(weights, [](Entry& e) { e.offset = 0xffffffffu, e.extra = zip64_extra({~uint64_t{0} - 10}); }),
          "no local header at offset 18446744073709551605");
  c.torch("zip64_no_locator", zip_bytes(good_entries(), {.members = 0xffff}), "zip64 locator is missing");
  c.torch("zip64_no_locator_short", zip_bytes({}, {.members = 0xffff}), "zip64 locator is missing");
  c.torch("zip64_record_elsewhere", zip64_bytes(good_entries(), 1), "not where the locator says");
  c.torch("zip64_record_past_end", zip64_bytes(good_entries(), ~uint64_t{0}), "not where the locator says");

  std::vector<ZipEntry> twins = good_entries();
  twins.push_back(twins.back());
  c.torch("zip_twins", zip_bytes(twins), "member 'model/version' occurs twice");
  std::vector<ZipEntry> pickles = good_entries();
  pickles.push_back({.name = "other/data.pkl", .bytes = "x"});
  c.torch("zip_two_pickles", zip_bytes(pickles), "several data.pkl");
  c.torch("zip_other_contents", zip_bytes({{.name = "word/document.xml", .bytes = "<w/>"}}), "no data.pkl");
  c.torch("big_endian", with("model/byteorder", [](Entry& e) { e.bytes = "big"; }), "byte order is 'big'");
}

}  // namespace

void bad_zips(Collector& c) {
  zip_frames(c);
  zip_members(c);
}

void bad_pickles(Collector& c) {
  const auto bad = [&](const char* name, const std::string& body, const char* expected) {
    c.torch(std::string("pickle_") + name, torch_bytes_of_pickle(body), expected);
  };
  const auto forbid = [&](const char* module, const char* name) {
    const std::string full = std::string(module) + "." + name;
    const std::string body =
        pk::global(module, name) + pk::tuple({pk::text("touch /tmp/volley-was-here")}) + "R";
    c.torch("global_" + full, torch_bytes_of_pickle(pk::whole(body)), "global '" + full + "' is not allowed");
  };
  forbid("os", "system");
  forbid("posix", "system");
  forbid("builtins", "eval");
  forbid("__builtin__", "exec");
  forbid("subprocess", "Popen");
  forbid("torch.storage", "_load_from_bytes");
  forbid("torch", "load");
  forbid("__torch__", "Model");
  bad("stack_global", pk::whole(pk::text("builtins") + pk::text("eval") + "\x93"),
      "global 'builtins.eval' is not allowed");
  bad("global_with_newline", pk::whole(pk::text("os\n") + pk::text("system") + "\x93"),
      R"(global 'os\x0a.system')");
  bad("stack_global_numbers", pk::whole("K\1K\2\x93"), "global without a name");
  bad("global_cut", "\x80\2ctorch", "cut short");

  bad("empty", "", "ends without STOP at byte 0");
  bad("no_stop", "\x80\2}", "ends without STOP at byte 3");
  bad("stop_at_once", ".", "STOP with 0 values");
  bad("two_values", "NN.", "STOP with 2 values");
  bad("open_mark", "(N.", "STOP with 1 values");
  bad("opcode_ext", "\x80\2\x82\1.", "unsupported opcode 0x82 at byte 2");
  bad("opcode_inst", "(ios\nsystem\n.", "unsupported opcode 0x69");
  bad("opcode_text_protocol", "I1\n.", "unsupported opcode 0x49");
  bad("protocol_1", "\x80\1N.", "protocol 1, expected 2 to 5");
  bad("protocol_9", "\x80\x09N.", "protocol 9, expected 2 to 5");
  bad("frame", "\x80\4\x95" + raw<uint64_t>(1000) + "N.", "frame of 1000 bytes reaches past the end");
  bad("memo_absent", "\x80\2h\7.", "memo has no value 7");
  bad("memo_absent_long", "\x80\2j" + raw<uint32_t>(0xffffffffu) + ".", "memo has no value 4294967295");
  bad("memo_put_nothing", "\x80\2q\1.", "stack underflow");
  bad("pop_nothing", "0.", "stack underflow");
  bad("tuple_nothing", "\x80\2N\x87.", "stack underflow");
  bad("pop_below_mark", "N(0.", "stack underflow");
  bad("fill_below_mark", "]((e.", "stack underflow");
  bad("no_mark", "Nt.", "no mark on the stack");
  bad("append_to_none", "NNa.", "items put into no container");
  bad("set_in_list", "]NNs.", "items put into no container");
  bad("key_without_value", "}(Nu.", "a key without a value");
  bad("call_of_text", pk::text("os.system") + ")R.", "call of what is no global");
  bad("call_without_tuple", pk::global("collections", "OrderedDict") + "NR.",
      "call without an argument tuple");
  bad("attributes_of_none", "NNb.", "attributes put on no object");
  bad("text_past_end", "X" + raw<uint32_t>(0x7fffffff) + "abc.",
      "text of 2147483647 bytes reaches past the end");
  bad("text8_past_end", "\x80\4\x8d" + raw<uint64_t>(~uint64_t{0}) + "abc.",
      "text of 18446744073709551615 bytes");
  bad("bytes_past_end", "B" + raw<uint32_t>(100) + "abc.", "text of 100 bytes reaches past the end");
  bad("text_not_utf8", pk::text("w\xc3\x28") + ".", R"(text 'w\xc3(' is not UTF-8)");
  bad("number_cut", "\x80\2J\1", "cut short");
  bad("long_cut", "\x80\2\x8a\x10\1", "cut short");
  bad("float_cut", "\x80\2G\1", "cut short");

  bad("bomb_stack", repeat("N", 600'000), "stack of more than 500000 values");
  bad("bomb_values", repeat("N0", 2'000'001), "more than 2000000 values");
  bad("bomb_marks", repeat("(", 20'000), "more than 10000 open marks");
  bad("bomb_opcodes", repeat("(1", 4'000'001), "more than 8000000 opcodes");
  std::string memo = "N";
  for (uint32_t i = 0; i <= 1'000'000; ++i) memo += "r" + raw(i);
  bad("bomb_memo", memo, "memo of more than 1000000 values");
  // Each tuple holds the one before twice: 2^64 values if anybody expanded them.
  bad("bomb_doubling",
      pk::whole(")q" + std::string(1, '\0') + repeat(std::string("h\0h\0\x86q\0", 7) + "0", 64) +
                std::string("h\0", 2)),
      "STOP with 2 values");
  bad("list_in_itself", "]q\1h\1a.", "pickle holds no state dict");
  bad("dict_in_itself", "}q\1" + pk::text("model") + "h\1s.", "state dict holds no tensors");
}

void bad_torch_tensors(Collector& c) {
  const auto bad = [&](const char* name, const TorchTensor& tensor, const char* expected) {
    c.torch(std::string("tensor_") + name, torch_bytes(tensor), expected);
  };
  constexpr int64_t kHuge = int64_t{1} << 62;
  bad("storage_absent", {.storage = "7"}, "tensor 'w': archive holds no 'data/7'");
  bad("storage_outside", {.storage = "../../etc/passwd"}, "archive holds no 'data/../../etc/passwd'");
  bad("storage_short", {.elements = 5}, "storage '0' has 16 bytes, 5 elements of f32 were promised");
  bad("storage_huge", {.elements = kHuge}, "4611686018427387904 elements of f32 were promised");
  bad("storage_negative", {.elements = -1}, "storage size is no count");
  bad("storage_type", {.type = "OrderedDict"}, "global 'torch.OrderedDict' is not allowed");
  bad("storage_type_size", {.type = "Size"}, "storage without a known type");
  bad("storage_type_complex", {.type = "ComplexFloatStorage"},
      "global 'torch.ComplexFloatStorage' is not allowed");
  bad("storage_double", {.type = "DoubleStorage"}, "4 elements of f64 were promised");
  bad("offset_negative", {.offset = -1}, "negative storage offset -1");
  bad("offset_past_end", {.offset = 1},
      "[2, 2] at offset 1 with its strides reaches past its storage of 4 elements");
  bad("offset_huge", {.offset = INT64_MAX}, "reaches past its storage");
  bad("shape_past_end", {.shape = {3, 2}}, "reaches past its storage");
  bad("shape_negative", {.shape = {-2, -2}}, "negative extent, -2");
  bad("shape_overflow", {.shape = {kHuge, 4}}, "overflows 64-bit sizes");
  bad("shape_rank_7", {.shape = {1, 1, 1, 1, 1, 2, 2}, .strides = {4, 4, 4, 4, 4, 2, 1}}, "has 7 dimensions");
  bad("strides_past_end", {.strides = {3, 1}}, "reaches past its storage");
  bad("strides_negative", {.offset = 3, .strides = {-2, -1}}, "negative stride -2");
  bad("strides_overflow", {.shape = {3, 3}, .strides = {INT64_MAX, INT64_MAX}}, "reaches past its storage");
  bad("strides_wrap", {.shape = {3, 2}, .strides = {INT64_MAX, 3}}, "reaches past its storage");
  bad("strides_missing", {.strides = {1}}, "2 extents but 1 strides");
  bad("expanded", {.shape = {1 << 30, 1 << 30}, .strides = {0, 0}}, "is over the limit of the file's size");

  const auto state = [&](const char* name, const std::string& value, const char* expected) {
    c.torch(std::string("state_") + name, torch_bytes_of_pickle(pk::whole(value)), expected);
  };
  const std::string rebuild = pk::global("torch._utils", "_rebuild_tensor_v2");
  const std::string parameter = pk::global("torch._utils", "_rebuild_parameter");
  const std::string float_storage = pk::global("torch", "FloatStorage");
  state("none", "N", "pickle holds no state dict");
  state("list", "]", "pickle holds no state dict");
  state("bare_tensor", torch_tensor({}), "pickle holds no state dict");
  state("empty", "}", "state dict holds no tensors");
  state("numbers", pk::dict({{"epoch", "K\1"}}), "state dict holds no tensors");
  state("twin", pk::dict({{"w", torch_tensor({})}, {"w", torch_tensor({})}}), "tensor 'w' occurs twice");
  state("name_number", "}(K\1" + torch_tensor({}) + "u", "whose name is no text");
  state("name_long", pk::dict({{repeat("n", 2000), torch_tensor({})}}), "at most 1024 bytes");
  state("few_arguments", pk::dict({{"w", rebuild + ")R"}}), "too few arguments");
  state("no_storage", pk::dict({{"w", rebuild + pk::tuple({"N", "K\1", ")", ")"}) + "R"}}),
        "tensor without a storage");
  state("storage_of_text",
        pk::dict({{"w", rebuild + pk::tuple({pk::text("0") + "Q", "K\1", ")", ")"}) + "R"}}),
        "storage id is no tuple of five");
  state("storage_of_nones", pk::dict({{"w", rebuild + pk::tuple({"(NNNNNtQ", "K\1", ")", ")"}) + "R"}}),
        "persistent id is no storage");
  state("storage_key",
        pk::dict({{"w", rebuild +
                            pk::tuple({pk::tuple({pk::text("storage"), float_storage, "N", "N", "K\1"}) + "Q",
                                       "K\1", ")", ")"}) +
                            "R"}}),
        "storage key is no text");
  state("shape_of_text",
        pk::dict(
            {{"w",
              rebuild +
                  pk::tuple({pk::tuple({pk::text("storage"), float_storage, pk::text("0"), "N", "K\4"}) + "Q",
                             "K\1", pk::text("x"), ")"}) +
                  "R"}}),
        "shape is no tuple");
  state("shape_of_nones",
        pk::dict(
            {{"w",
              rebuild +
                  pk::tuple({pk::tuple({pk::text("storage"), float_storage, pk::text("0"), "N", "K\4"}) + "Q",
                             "K\1", "N\x85", "N\x85"}) +
                  "R"}}),
        "shape holds what is no integer");
  state("offset_of_none",
        pk::dict(
            {{"w",
              rebuild +
                  pk::tuple({pk::tuple({pk::text("storage"), float_storage, pk::text("0"), "N", "K\4"}) + "Q",
                             "N", ")", ")"}) +
                  "R"}}),
        "storage offset is no integer");
  state("parameter_empty", pk::dict({{"w", parameter + ")R"}}), "_rebuild_parameter without arguments");
  state("parameter_of_none", pk::dict({{"w", parameter + "N\x85R"}}), "parameter holds no tensor");
}

}  // namespace volley::test
