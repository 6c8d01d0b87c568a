#include <algorithm>

#include "core/decode/decoder.h"
#include "tests/goldens/golden_case.h"

namespace volley::goldens {

void check_methods(const Run& run, MethodsCheck check) {
  for (const char* method : {"sequential", "lookup", "tree", "jacobi", "lookahead"}) {
    const std::unique_ptr<Decoder> decoder = make_decoder(parse_decoder_spec(method));
    Session::Options options{.sequences = 2 * static_cast<int64_t>(check.generations.size())};
    for (const Generation& generation : check.generations) {
      options.entries = std::max(options.entries, decoder->entries(generation));
    }
    const int64_t width = check.model.traits().memory_width;
    if (width > 0) {
      options.memory_sequences = 1;
      options.memory_entries = static_cast<int64_t>(check.memory.size()) / width;
    }
    Session session(check.model, run.backend, options);
    if (width > 0) {
      const SequenceId memory = session.add_memory(check.memory);
      for (Generation& generation : check.generations) generation.memory = memory;
    }
    std::vector<int32_t> tokens;
    for (const GenerationOutput& output : decoder->decode(session, check.generations, {})) {
      tokens.insert(tokens.end(), output.tokens.begin(), output.tokens.end());
    }
    run.check.equal(check.name + " by " + method, tokens, check.expected);
  }
}

}  // namespace volley::goldens
