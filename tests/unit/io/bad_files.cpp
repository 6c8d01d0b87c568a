#include "tests/unit/io/bad_files.h"

#include <sys/stat.h>
#include <unistd.h>

#include <random>

#include "tests/unit/io/bad_files_collector.h"
#include "tests/unit/io/file_builders.h"

namespace volley::test {
namespace {

namespace fs = std::filesystem;

std::string random_bytes(unsigned seed, size_t count) {
  std::mt19937 generator(seed);
  std::string bytes(count, '\0');
  for (char& byte : bytes) byte = static_cast<char>(generator() & 0xffu);
  return bytes;
}

// Whatever else lies where weights should.
void strangers(Collector& c) {
  c.file("empty_safetensors", "empty.safetensors", "", "file is empty");
  c.file("empty_pt", "empty.pt", "", "file is empty");
  c.file("git_lfs", "model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
         "Git LFS pointer");
  c.file("torch_legacy", "old.pth", std::string("\x80\x02\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 16),
         "before version 1.6");
  c.file("text", "notes.txt", "weights go here\n",
         "neither a safetensors file nor a PyTorch zip file nor a GGUF file");
  for (const unsigned seed : {1u, 2u, 3u, 4u}) {
    const std::string tail = std::to_string(seed);
    const std::string bytes = random_bytes(seed, 4096);
    c.file("random_bin_" + tail, "noise.dat", bytes,
           "neither a safetensors file nor a PyTorch zip file nor a GGUF file");
    c.file("random_safetensors_" + tail, "noise.safetensors", bytes, "over the limit");
    c.file("random_pt_" + tail, "noise.pt", bytes, "no end-of-directory record");
    c.file("random_after_pk_" + tail, "noise.pt", "PK\3\4" + bytes, "no end-of-directory record");
    c.file("random_pickle_" + tail, "noise.pt", torch_bytes_of_pickle(bytes), "pickle: ");
    c.file("random_header_" + tail, "noise.safetensors", safetensors_bytes("{" + bytes, ""),
           "header: JSON: ");
  }
}

void places(Collector& c) {
  c.add("missing", "no such file or folder",
        [](const fs::path& f) { return (f / "none.safetensors").string(); });
  c.add("folder_empty", "folder holds neither model.safetensors",
        [](const fs::path& f) { return f.string(); });
  c.add("folder_named_model", "is a directory", [](const fs::path& f) {
    fs::create_directory(f / "model.safetensors");
    return f.string();
  });
  c.add("folder_in_itself", "is a directory", [](const fs::path& f) {
    fs::create_symlink(".", f / "model.safetensors");
    return f.string();
  });
  c.add("symlink_loop", "symbolic links", [](const fs::path& f) {
    fs::create_symlink(f / "a.safetensors", f / "b.safetensors");
    fs::create_symlink(f / "b.safetensors", f / "a.safetensors");
    return (f / "a.safetensors").string();
  });
  c.add("symlink_loop_in_folder", "symbolic links", [](const fs::path& f) {
    fs::create_symlink("model.safetensors", f / "model.safetensors");
    return f.string();
  });
  c.add("symlink_dangling", "no such file or folder", [](const fs::path& f) {
    fs::create_symlink("nothing", f / "a.safetensors");
    return (f / "a.safetensors").string();
  });
  c.add("below_a_file", "no such file or folder",
        [](const fs::path& f) { return write_text((f / "plain").string(), "x") + "/model.safetensors"; });
  c.add("name_too_long", "File name too long",
        [](const fs::path& f) { return (f / repeat("n", 300)).string(); });
  c.add("pipe", "is not a regular file", [](const fs::path& f) {
    ::mkfifo((f / "pipe.safetensors").c_str(), 0600);
    return (f / "pipe.safetensors").string();
  });
  c.add("device", "is not a regular file", [](const fs::path&) { return std::string("/dev/zero"); });
  if (::geteuid() != 0) {  // root may read everything
    c.add("no_permission", "Permission denied", [](const fs::path& f) {
      const std::string path = write_text((f / "secret.safetensors").string(), "x");
      ::chmod(path.c_str(), 0);
      return path;
    });
  }
}

void shards(Collector& c) {
  const auto bad = [&](const char* name, const std::string& index, const char* expected) {
    c.add(std::string("shards_") + name, expected, [index](const fs::path& folder) {
      write_text((folder / "one.safetensors").string(),
                 safetensors_bytes(kGoodHeader, std::string(22, '\1')));
      write_text((folder / "cut.safetensors").string(), "abc");
      fs::create_directory(folder / "folder");
      write_text((folder / "model.safetensors.index.json").string(), index);
      return folder.string();
    });
  };
  const auto map = [](const std::string& shard) { return "{\"weight_map\":{\"a\":\"" + shard + "\"}}"; };
  bad("parent", map("../one.safetensors"), "shard '../one.safetensors' is not a plain file name");
  bad("absolute", map("/etc/passwd"), "shard '/etc/passwd' is not a plain file name");
  bad("below", map("folder/one.safetensors"), "is not a plain file name");
  bad("backslash", map(R"(..\\one.safetensors)"), "is not a plain file name");
  bad("dot", map("."), "is not a plain file name");
  bad("nameless", map(""), "shard '' is not a plain file name");
  bad("nul", map(R"(one.safetensors\u0000x)"), "is not a plain file name");
  bad("number", R"({"weight_map":{"a":1}})", "value of 'a' is no string");
  bad("no_map", "{}", "weight_map is missing");
  bad("map_list", R"({"weight_map":["a"]})", "weight_map is missing or no object");
  bad("map_empty", R"({"weight_map":{}})", "weight_map names no tensors");
  bad("list", "[]", "shard index is no JSON object");
  bad("empty_index", "", "unexpected end of input");
  bad("index_cut", R"({"weight_map":{"a":)", "JSON: parse error");
  bad("twin", R"({"weight_map":{"a":"one.safetensors","a":"cut.safetensors"}})", "duplicate key 'a'");
  bad("absent", map("two.safetensors"), "shard 'two.safetensors': cannot open: No such file");
  bad("broken", map("cut.safetensors"), "shard 'cut.safetensors': file of 3 bytes is too short");
  bad("is_folder", map("folder"), "shard 'folder': is a directory");
  bad("lacks_tensor", R"({"weight_map":{"c":"one.safetensors"}})",
      "shard 'one.safetensors' lacks tensor 'c'");
}

void configs(Collector& c) {
  c.config("empty", "", "unexpected end of input");
  c.config("spaces", "  \n ", "unexpected end of input");
  c.config("cut", R"({"dim": 64, "n_layer")", "JSON: parse error");
  c.config("cut_in_text", R"({"dim": "6)", "missing closing quote");
  c.config("comma", R"({"dim": 64,})", "JSON: parse error");
  c.config("two_values", R"({"dim": 64} {})", "JSON: parse error");
  c.config("single_quotes", "{'dim': 64}", "JSON: parse error");
  c.config("comment", "{\"dim\": 64 // width\n}", "JSON: parse error");
  c.config("nan", R"({"dim": NaN})", "invalid literal");
  c.config("hex", R"({"dim": 0x40})", "JSON: parse error");
  c.config("overflow", R"({"dim": 1e999})", "number overflow");
  c.config("twin", R"({"dim": 64, "dim": 65})", "duplicate key 'dim'");
  c.config("twin_escaped", R"({"dim": 64, "d\u0069m": 65})", "duplicate key 'dim'");
  c.config("twin_inside", R"({"a": [{"b": 1, "b": 2}]})", "duplicate key 'b'");
  c.config("nested_lists", repeat("[", 65) + repeat("]", 65), "nested deeper than 64 levels");
  c.config("nested_objects", repeat("{\"a\":", 1'000'000), "nested deeper than 64 levels");
  c.config("not_utf8", "{\"\x80\": 1}", "UTF-8");
  c.config("utf8_overlong", "{\"\xc0\xaf\": 1}", "UTF-8");
  c.config("lone_surrogate", R"({"a": "\ud800"})", "surrogate");
  c.config("bad_escape", R"({"a": "\q"})", "JSON: parse error");
  c.config("control_character", "{\"a\": \"line\nbreak\"}", "JSON: parse error");
  c.config("nul", std::string("{\0}", 3), "JSON: parse error");
  c.config("utf16", std::string("\xff\xfe{\0}\0", 6), "JSON: parse error");
  c.config("bomb_values", "[" + repeat("[],", 10'000'001), "more than 10000000 values");
  c.config("huge", std::string((size_t{64} << 20) + 1, ' '), "text of 67108865 bytes, the limit is 67108864");
  c.add("config_missing", "cannot open: No such file",
        [](const fs::path& f) { return (f / "config.json").string(); });
  c.all.back().read = BadFile::Read::kConfig;
  c.add("config_folder", "is a directory", [](const fs::path& f) { return f.string(); });
  c.all.back().read = BadFile::Read::kConfig;
}

}  // namespace

std::vector<BadFile> bad_files() {
  Collector collector;
  bad_safetensors(collector);
  bad_gguf(collector);
  bad_zips(collector);
  bad_pickles(collector);
  bad_torch_tensors(collector);
  strangers(collector);
  places(collector);
  shards(collector);
  configs(collector);
  return std::move(collector.all);
}

}  // namespace volley::test
