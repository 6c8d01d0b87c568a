// whisper-small with random weights: its encoder on 30 s of sound, and its decoder, greedy, token by token.
//
//     speech_bench --device cuda:0 --dtype bf16 --out weights.safetensors
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/decode/decoder.h"
#include "core/decode/session.h"
#include "core/io/open_weights.h"
#include "speech/whisper_decoder.h"
#include "speech/whisper_encoder.h"
#include "tests/bench/random_weights.h"
#include "tests/bench/storage_name.h"

namespace volley {
namespace {

constexpr int64_t kFrames = 3000;  // of 30 s
constexpr int64_t kSounds = 16;    // encoded at once
constexpr int64_t kTokens = 200;
constexpr speech::WhisperConfig kSmall{.d_model = 768,
                                       .encoder_layers = 12,
                                       .encoder_attention_heads = 12,
                                       .encoder_ffn_dim = 3072,
                                       .decoder_layers = 12,
                                       .decoder_attention_heads = 12,
                                       .decoder_ffn_dim = 3072,
                                       .num_mel_bins = 80,
                                       .max_source_positions = 1500,
                                       .max_target_positions = 448,
                                       .vocab_size = 51865};

double median_seconds(int64_t repeats, const std::function<void()>& run) {
  for (int i = 0; i < 3; ++i) run();  // memory, recordings
  std::vector<double> seconds;
  for (int64_t i = 0; i < repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    run();
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::ranges::sort(seconds);
  return seconds[seconds.size() / 2];
}

// Encodes `sounds` at once. Returns the output, [N, T, d].
std::vector<float> time_encoder(const Backend& backend, const speech::WhisperEncoder& encoder, int64_t sounds,
                                int64_t repeats) {
  const std::unique_ptr<Queue> queue = backend.make_queue();
  Arena arena(backend);
  const Tensor mel = arena.tensor({sounds, kSmall.num_mel_bins, kFrames});
  const Tensor out = arena.tensor({sounds, encoder.rows(kFrames), kSmall.d_model});
  std::vector<float> values(static_cast<size_t>(mel.size()));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i * 7919 % 2000) / 1000.0f - 1.0f;
  queue->upload(values.data(), mel.data, mel.size() * 4);
  const std::vector<int64_t> key{kFrames};
  std::vector<float> rows(static_cast<size_t>(out.size()));
  const auto encode = [&] {
    queue->run_recorded(key, [&] { encoder.encode(*queue, arena, {.mel = mel, .out = out}); });
  };
  const double encoding = median_seconds(repeats, [&] {
    encode();
    queue->finish();
  });
  const double seconds = median_seconds(repeats, [&] {
    encode();
    queue->download(out.data, rows.data(), out.size() * 4);
  });
  std::printf("encoder, %lld x 30 s: %.2f ms, with its output read by the host %.2f ms\n",
              static_cast<long long>(sounds), encoding * 1e3, seconds * 1e3);
  return rows;
}

void time_decoder(const std::shared_ptr<const Backend>& backend, const WeightLoader& loader,
                  const std::vector<float>& rows, int64_t repeats) {
  const speech::WhisperDecoder model(kSmall, loader);
  const std::unique_ptr<Decoder> decoder = make_decoder({.name = "sequential"});
  const int32_t first = 50258;
  Generation generation{
      .prompt = token_prompt(model, {&first, 1}), .chain = {.temperature = 0.0f}, .max_tokens = kTokens};
  Session session(model, backend,
                  {.entries = decoder->entries(generation),
                   .memory_sequences = 1,
                   .memory_entries = kSmall.max_source_positions});
  generation.memory = session.add_memory(rows);
  const double seconds = median_seconds(repeats, [&] { decoder->decode(session, {&generation, 1}, {}); });
  const Statistics counts = session.statistics();
  std::printf("decoder, %lld greedy tokens: %.2f ms, %.0f tokens/s, %.2f tokens a forward\n",
              static_cast<long long>(kTokens), seconds * 1e3, static_cast<double>(kTokens) / seconds,
              static_cast<double>(counts.tokens) / static_cast<double>(counts.forwards));
}

int run(int argc, char** argv) {
  std::string device = "auto", dtype = "bf16", file;
  int64_t repeats = 5;
  CLI::App app("times whisper-small with random weights");
  app.add_option("--device", device, "as volley's");
  app.add_option("--dtype", dtype, "f32, bf16 or q8_0")->check(CLI::IsMember({"f32", "bf16", "q8_0"}));
  app.add_option("-o,--out", file, "file of the weights, made if it is not there")->required();
  app.add_option("--repeats", repeats, "runs that are timed");
  CLI11_PARSE(app, argc, argv);
  const WeightType type = storage_of(dtype);
  if (!std::filesystem::exists(file))
    write_random_weights(published_tensors("whisper-small"), DType::kF32, file);
  const auto source = open_weights(file);
  const auto backend = make_backend(device, 0);
  std::printf("whisper-small (R), %s, %s; median of %lld runs after 3\n", backend->info().description.c_str(),
              dtype.c_str(), static_cast<long long>(repeats));
  const WeightLoader loader(*source, *backend, type);
  const speech::WhisperEncoder encoder(kSmall, loader);
  const std::vector<float> rows = time_encoder(*backend, encoder, 1, repeats);
  time_encoder(*backend, encoder, kSounds, repeats);
  time_decoder(backend, loader, rows, repeats);
  return 0;
}

}  // namespace
}  // namespace volley

int main(int argc, char** argv) {
  try {
    return volley::run(argc, argv);
  } catch (const volley::Error& error) {
    std::fprintf(stderr, "speech_bench: %s\n", error.what());
    return 1;
  }
}
