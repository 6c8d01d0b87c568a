// Speed of encoding: MB/s of one text, first without and then with what the tokenizer remembers of it; and
// the ids of many texts for tools/bench/tokenizers_peer.py, which compares them with the PyPI package's.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>

#include "core/io/byte_reader.h"
#include "core/io/mapped_file.h"
#include "text/text_model.h"
#include "text/tokenizer/read_tokenizer.h"

namespace {

using volley::text::TokenizerPtr;

TokenizerPtr read_tokenizer(const std::string& path) {
  return path.ends_with(".gguf") ? volley::text::open_text_checkpoint(path).tokenizer
                                 : volley::text::read_tokenizer(path);
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void measure(const std::string& tokenizer_path, std::string_view text, int repeats) {
  std::vector<double> loads, first, again, decodes;
  size_t tokens = 0;
  for (int i = 0; i < repeats; ++i) {
    auto start = std::chrono::steady_clock::now();
    const TokenizerPtr tokenizer = read_tokenizer(tokenizer_path);
    loads.push_back(seconds_since(start));
    start = std::chrono::steady_clock::now();
    tokens = tokenizer->encode(text).size();
    first.push_back(seconds_since(start));
    start = std::chrono::steady_clock::now();
    const std::vector<int32_t> ids = tokenizer->encode(text);
    again.push_back(seconds_since(start));
    start = std::chrono::steady_clock::now();
    const std::string decoded = tokenizer->decode(ids);
    decodes.push_back(seconds_since(start));
    if (i == 0) std::printf("decoded text is %s\n", decoded == text ? "the text" : "another text");
  }
  const auto median = [](std::vector<double> times) {
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
  };
  const double megabytes = static_cast<double>(text.size()) * 1e-6;
  std::printf("%.2f MB, %zu tokens; medians of %d runs, one thread\n", megabytes, tokens, repeats);
  std::printf("load %.1f ms, encode %.1f MB/s (first call), %.1f MB/s (again), decode %.0f MB/s\n",
              1e3 * median(loads), megabytes / median(first), megabytes / median(again),
              megabytes / median(decodes));
}

// Texts and ids are each a 32-bit count and then the bytes or ids.
void write_ids(const std::string& tokenizer_path, std::string_view cases, const std::string& out) {
  const TokenizerPtr tokenizer = read_tokenizer(tokenizer_path);
  volley::ByteReader reader(volley::as_bytes(cases));
  std::ofstream file(out, std::ios::binary);
  uint32_t size = 0;
  std::span<const std::byte> text;
  while (reader.read(size) && reader.take(size, text)) {
    const std::vector<int32_t> ids = tokenizer->encode(volley::as_text(text));
    const auto count = static_cast<uint32_t>(ids.size());
    file.write(reinterpret_cast<const char*>(&count), sizeof(count));
    file.write(reinterpret_cast<const char*>(ids.data()), static_cast<std::streamsize>(4 * ids.size()));
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Speed of tokenizers.");
  std::string tokenizer, text, cases, out;
  int repeats = 5;
  app.add_option("--tokenizer", tokenizer, "tokenizer.json, .model, .gguf or a folder")->required();
  app.add_option("--text", text, "file to encode");
  app.add_option("--repeats", repeats, "runs of which the median is shown")->check(CLI::Range(1, 1000));
  app.add_option("--cases", cases, "file of counted texts");
  app.add_option("--out", out, "where the cases' ids go");
  CLI11_PARSE(app, argc, argv);
  try {
    if (!text.empty()) {
      const auto file = volley::MappedFile::open(text).value_or_throw(text);
      measure(tokenizer, volley::as_text(file.bytes()), repeats);
    }
    if (!cases.empty()) {
      const auto file = volley::MappedFile::open(cases).value_or_throw(cases);
      write_ids(tokenizer, volley::as_text(file.bytes()), out);
    }
  } catch (const volley::Error& error) {
    std::fprintf(stderr, "tokenizer_bench: %s\n", error.what());
    return 1;
  }
  return 0;
}
