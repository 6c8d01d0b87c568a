// The registry of decoding methods: one table for help texts, documentation and construction.
#include "core/decode/decoder.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/decode/methods.h"

namespace volley {
namespace {

using Factory = std::unique_ptr<Decoder> (*)(const OptionReader&, const Drafters&);

template <std::unique_ptr<Decoder> (*make)(const OptionReader&)>
std::unique_ptr<Decoder> without_drafters(const OptionReader& options, const Drafters&) {
  return make(options);
}

const DecoderOption kAccept{"accept", "coupled", "coupled: sequential's tokens; rejection: its distribution"};
const DecoderOption kDraftLength{"draft", "8", "longest draft"};
const DecoderOption kDraftPace{
    "length", "schedule",
    "schedule: two more after a draft that was right, else one less; fixed: always the "
    "longest; adaptive: what pays, as measured"};
const DecoderOption kPace{"length", "fixed",
                          "fixed: always the longest; adaptive: what pays, as measured, down to none"};
const DecoderOption kNgram{"ngram", "3", "longest context matched"};
const DecoderOption kPool{"pool", "0", "tokens of a run's other texts that are drafted from, too; 0: none"};
const DecoderOption kWidths{"widths", "3x2x1x1", "guesses below each node, by depth"};

struct Entry {
  DecoderInfo info;
  Factory make;
};

const std::vector<Entry>& entries() {
  static const std::vector<Entry> table{
      {{.name = "sequential",
        .kind = DecoderClass::kSameTokens,
        .needs = "causal model",
        .summary = "one token a forward",
        .paper = ""},
       without_drafters<make_sequential>},
      {{.name = "lookup",
        .kind = DecoderClass::kSameTokens,
        .kind_note = "same-distribution with accept=rejection",
        .needs = "causal model",
        .length_option = "draft",
        .summary = "drafts what followed the last tokens when they occurred before",
        .paper = "Saxena 2023, Prompt lookup decoding",
        .options = {kDraftLength, kPace, kNgram, kPool, kAccept}},
       without_drafters<make_lookup>},
      {{.name = "tree",
        .kind = DecoderClass::kSameTokens,
        .kind_note = "same-distribution with accept=rejection",
        .needs = "causal model",
        .length_option = "widths",
        .summary = "verifies a tree of ranked guesses in one forward",
        .paper = "Miao et al. 2023, SpecInfer; Cai et al. 2024, Medusa",
        .options = {kWidths, kNgram, kPool, kAccept}},
       without_drafters<make_tree>},
      {{.name = "jacobi",
        .kind = DecoderClass::kSameTokens,
        .needs = "causal model",
        .length_option = "window",
        .summary = "verifies a window of its own previous guesses, under noise that belongs to positions",
        .paper = "Santilli et al. 2023; Teng et al. 2024, Speculative Jacobi decoding (coupled here)",
        .options = {{"window", "16", "guesses a forward"},
                    kPace,
                    {"init", "repeat", "first guesses: repeat or random"}}},
       without_drafters<make_jacobi>},
      {{.name = "lookahead",
        .kind = DecoderClass::kSameTokens,
        .needs = "causal model",
        .length_option = "N",
        .summary =
            "verifies n-grams collected from its own iterated guesses, beside the window of these guesses",
        .paper = "Fu et al. 2024, Lookahead decoding",
        .options = {{"W", "7", "columns of the window"},
                    {"N", "5", "tokens of an n-gram"},
                    {"G", "7", "n-grams tried in a forward"}}},
       without_drafters<make_lookahead>},
      {{.name = "draft",
        .kind = DecoderClass::kSameTokens,
        .needs = "causal model, and a small one of its vocabulary",
        .needs_draft_model = true,
        .length_option = "draft",
        .summary = "verifies what a small model chooses under the same noise",
        .paper = "Leviathan et al. 2023; Chen et al. 2023, Speculative sampling (coupled here)",
        .options = {kDraftLength, kDraftPace}},
       make_draft},
      {{.name = "draft-rejection",
        .kind = DecoderClass::kSameDistribution,
        .needs = "causal model, and a small one of its vocabulary",
        .needs_draft_model = true,
        .length_option = "draft",
        .summary = "accepts what a small model draws with probability p/q",
        .paper = "Leviathan et al. 2023; Chen et al. 2023, Speculative sampling",
        .options = {kDraftLength, kDraftPace}},
       make_draft_rejection},
      {{.name = "heads",
        .kind = DecoderClass::kSameTokens,
        .kind_note = "lossy with accept=typical",
        .needs = "causal model, and heads trained on it (Medusa, Hydra)",
        .needs_heads = true,
        .length_option = "heads",
        .summary =
            "verifies what followed before, or a tree of what heads on the model's last hidden row choose",
        .paper = "Cai et al. 2024, Medusa; Ankner et al. 2024, Hydra (coupled here)",
        .options = {{"heads", "0", "levels that are drafted at most; 0: one for each head"},
                    {"width", "1", "guesses below a node, and nodes of a level that get any; 1: chains"},
                    {"nodes", "16", "guesses a forward at most"},
                    {"confidence", "0.25",
                     "least probability of a guess, those before it included, by the heads"},
                    {"further", "3", "guesses so many times as likely are guessed behind"},
                    {"copy", "2",
                     "tokens copied at most from where the last ones occurred before, in place of guesses"},
                    {"ngram", "5", "longest context matched to copy"},
                    kPace,
                    {"accept", "coupled", "coupled: sequential's tokens; typical: what is likely enough"},
                    {"epsilon", "0.3", "accept=typical: a probability above it is always enough"},
                    {"alpha", "0.09", "accept=typical: so is one above alpha exp(-entropy)"}}},
       make_heads},
      {{.name = "parallel",
        .kind = DecoderClass::kOwnModel,
        .model = DecoderModel::kRandomOrder,
        .needs = "random-order model (ARPG)",
        .summary = "decides several positions of a random order in each step",
        .paper = "Li et al. 2025, ARPG",
        .options = {{"steps", "64", "forwards"},
                    {"schedule", "arccos", "sizes of the steps: arccos or cosine"},
                    {"order", "random", "positions in turn: random, raster or center (outwards)"}}},
       without_drafters<make_parallel>},
      {{.name = "masked",
        .kind = DecoderClass::kOwnModel,
        .model = DecoderModel::kMasked,
        .needs = "masked model (SMDM, Whisfusion)",
        .summary = "guesses all hidden places at once, for several candidates",
        .paper = "Whisfusion 2025, parallel diffusion decoding",
        .options = {{"candidates", "15", "sequences made side by side"},
                    {"ratios", "1x0.9x0.85x0.8", "share of places hidden in each step"}}},
       without_drafters<make_masked>},
      {{.name = "diffusion",
        .kind = DecoderClass::kOwnModel,
        .model = DecoderModel::kMaskedDiffusion,
        .needs = "masked diffusion model (LLaDA)",
        .summary = "fills blocks of hidden places from left to right, in each step the surest places",
        .paper = "Nie et al. 2025, LLaDA; Wu et al. 2025, Fast-dLLM; Chen et al. 2025, dParallel",
        .options =
            {{"steps", "0", "forwards, shared out evenly among the blocks; 0: one for each token"},
             {"block_length", "32", "places of a block"},
             {"remasking", "low_confidence",
              "what makes a place sure: low_confidence (the guess's probability), margin (its lead over "
              "the next), entropy, or random"},
             {"threshold", "off", "fill all places at least so sure (entropy: at most), not by steps"},
             {"factor", "off", "fill the surest n places while (n + 1) (1 - probability) <= factor"},
             {"cache", "off",
              "off; prefix: keep what stands before the block; dual: and what stands behind it"},
             {"second_forward", "needed",
              "of a block with a cache: needed; always: even if nothing is hidden, as Fast-dLLM v1"}}},
       without_drafters<make_diffusion>},
      {{.name = "block-diffusion",
        .kind = DecoderClass::kOwnModel,
        .model = DecoderModel::kBlockDiffusion,
        .needs = "block diffusion model (Fast-dLLM v2)",
        .summary =
            "fills the model's blocks behind cached ones, in each step the surest places of a sub-block",
        .paper = "Wu et al. 2025, Fast-dLLM v2",
        .options = {{"sub_block", "8", "places that are filled before the next ones of the block"},
                    {"threshold", "off", "fill all places surer than that; off: one a forward"},
                    {"cache", "off",
                     "off: each forward runs the block; dual: between those that fill the first place of a "
                     "sub-block, only the sub-block"}}},
       without_drafters<make_block_diffusion>},
      {{.name = "sequential-diffusion",
        .kind = DecoderClass::kOwnModel,
        .model = DecoderModel::kSequentialDiffusion,
        .needs = "sequential diffusion model (SDLM)",
        .summary = "guesses a window of next tokens and keeps the longest run of sure ones",
        .paper = "Liu et al. 2025, Sequential diffusion language models",
        .options = {{"threshold", "0.9", "tokens are kept as long as they are surer than that"},
                    {"confidence", "probability",
                     "how sure one is: its probability, or entropy: 1 - entropy / log(vocabulary)"}}},
       without_drafters<make_sequential_diffusion>},
  };
  return table;
}

// The first levels of the usual tree, and single guesses below them.
std::string widths_of_depth(int64_t depth) {
  std::string widths = kWidths.fallback.substr(0, static_cast<size_t>(2 * depth - 1));
  for (auto level = std::ssize(widths) / 2 + 1; level < depth; ++level) widths += "x1";
  return widths;
}

const Entry& find_entry(const std::string& name) {
  std::vector<std::string> names;
  for (const Entry& entry : entries()) {
    if (entry.info.name == name) return entry;
    names.push_back(entry.info.name);
  }
  throw Error("--decoder " + name + ": no such method; nearest is " + nearest_names(name, names, 1)[0],
              ErrorKind::kUsage);
}

}  // namespace

std::string_view decoder_class_name(DecoderClass kind) {
  switch (kind) {
    case DecoderClass::kSameTokens:
      return "same-tokens";
    case DecoderClass::kSameDistribution:
      return "same-distribution";
    case DecoderClass::kLossy:
      return "lossy";
    case DecoderClass::kOwnModel:
      return "own model";
  }
  return "?";
}

const std::vector<DecoderInfo>& decoder_registry() {
  static const std::vector<DecoderInfo> table = [] {
    std::vector<DecoderInfo> infos;
    for (const Entry& entry : entries()) infos.push_back(entry.info);
    return infos;
  }();
  return table;
}

std::unique_ptr<Decoder> make_decoder(const DecoderSpec& spec, const Drafters& drafters) {
  return find_entry(spec.name).make(OptionReader(spec), drafters);
}

DecoderClass decoder_class(const DecoderSpec& spec) {
  const auto accept = spec.options.find("accept");
  if (accept != spec.options.end() && accept->second == "rejection") return DecoderClass::kSameDistribution;
  if (accept != spec.options.end() && accept->second == "typical") return DecoderClass::kLossy;
  return find_entry(spec.name).info.kind;
}

DecoderModel decoder_model(const DecoderSpec& spec) {
  return find_entry(spec.name).info.model;
}

bool needs_draft_model(const DecoderSpec& spec) {
  return find_entry(spec.name).info.needs_draft_model;
}

bool needs_heads(const DecoderSpec& spec) {
  return find_entry(spec.name).info.needs_heads;
}

std::string decoder_text(const DecoderSpec& spec) {
  std::string text = spec.name;
  char separator = ':';
  for (const auto& [key, value] : spec.options) {
    text += separator + key + "=" + value;
    separator = ',';
  }
  return text;
}

void state_options(DecoderSpec& spec) {
  make_decoder(spec);  // throws for unknown names, options and values
  for (const DecoderInfo& info : decoder_registry()) {
    if (info.name != spec.name) continue;
    for (const DecoderOption& option : info.options) spec.options.emplace(option.name, option.fallback);
  }
}

void limit_drafts(DecoderSpec& spec, int64_t tokens) {
  const std::string& option = find_entry(spec.name).info.length_option;
  const std::string flag = "--draft-max " + std::to_string(tokens) + ": ";
  if (option.empty()) throw Error(flag + "decoder " + spec.name + " drafts nothing", ErrorKind::kUsage);
  if (spec.options.contains(option)) {
    throw Error(flag + "--decoder " + decoder_text(spec) + " says how long a draft may be, too",
                ErrorKind::kUsage);
  }
  spec.options[option] = option == "widths" ? widths_of_depth(tokens)
                         : option == "N"    ? std::to_string(tokens + 1)
                                            : std::to_string(tokens);
  try {
    make_decoder(spec);
  } catch (const Error& error) {
    throw Error(flag + error.what(), ErrorKind::kUsage);
  }
}

void plan_longest_drafts(DecoderSpec& spec) {
  const auto length = spec.options.find("length");
  if (length != spec.options.end() && length->second == "adaptive") length->second = "fixed";
}

DecoderSpec parse_decoder_spec(std::string_view text) {
  const auto colon = text.find(':');
  DecoderSpec spec{.name = std::string(text.substr(0, colon))};
  if (colon == std::string_view::npos) return spec;
  std::string_view rest = text.substr(colon + 1);
  while (!rest.empty()) {
    const auto comma = rest.find(',');
    const std::string_view pair = rest.substr(0, comma);
    const auto equals = pair.find('=');
    if (equals == std::string_view::npos || equals == 0) {
      throw Error("--decoder " + std::string(text) + ": '" + std::string(pair) + "' is not key=value",
                  ErrorKind::kUsage);
    }
    spec.options[std::string(pair.substr(0, equals))] = std::string(pair.substr(equals + 1));
    rest = comma == std::string_view::npos ? std::string_view{} : rest.substr(comma + 1);
  }
  return spec;
}

}  // namespace volley
