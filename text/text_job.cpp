// The front end of text: request in, answers out as they come.
#include "text/text_job.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "core/base/error.h"
#include "core/base/version.h"
#include "text/constraint/token_constraint.h"
#include "text/text_stream.h"

namespace volley::text {
namespace {

// Beginnings of prompts that stay in a runner's cache.
constexpr int64_t kKeptPrompts = 4;

// An answer in the making.
struct Item {
  TextAnswer answer;
  std::vector<int32_t> prompt;
  int64_t limit = 0;  // tokens it may have
  std::optional<ContextShift> shift;
  std::shared_ptr<const Constraint> constraint;
  TextStream stream;
  std::vector<TextPiece> new_pieces;  // of tokens that no step has told of yet
  std::vector<int64_t> steps;  // that made the tokens, by position; some methods leave gaps for a while
  int64_t last_step = 0;
};

// What all prompts of a request have in common, made into one prompt's generation. `stream` is told each
// token and asked whether the answer ends with it.
Generation make_generation(const TextModel& model, const TextRequest& request, const Item& item,
                           std::function<bool(int32_t)> ends_with) {
  Generation generation{.prompt = token_prompt(model.step_model(), item.prompt),
                        .chain = {.temperature = static_cast<float>(request.temperature),
                                  .top_k = static_cast<int32_t>(request.top_k),
                                  .top_p = static_cast<float>(request.top_p)},
                        .seed = item.answer.seed,
                        .max_tokens = item.limit,
                        .stop_tokens = model.checkpoint().end_tokens,
                        .ends_with = std::move(ends_with),
                        .constraint = item.constraint,
                        .mask_token = model.checkpoint().llama.config.mask_token,
                        .mask_block = model.checkpoint().llama.config.mask_block};
  if (request.cfg_scale > 0.0) {
    const std::vector<int32_t> hidden(item.prompt.size(), generation.mask_token);
    generation.unconditional = token_prompt(model.step_model(), hidden);
    generation.chain.guidance.scale = static_cast<float>(request.cfg_scale + 1.0);
  }
  return generation;
}

// Answers that are made together; if their contexts shift, all do.
struct Batch {
  std::vector<Generation> generations;
  std::vector<ContextShift> shifts;

  void add(Generation generation, const std::optional<ContextShift>& shift) {
    generations.push_back(std::move(generation));
    if (shift) shifts.push_back(*shift);
  }

  // Room in the cache for all of them.
  Session::Options room(const Decoder& decoder) const {
    Session::Options room{.sequences = 0};
    for (size_t i = 0; i < generations.size(); ++i) {
      room.entries =
          std::max(room.entries, shifts.empty() ? decoder.entries(generations[i])
                                                : shifting_entries(decoder, generations[i], shifts[i]));
      room.sequences += generations[i].unconditional ? 2 : 1;
    }
    return room;
  }

  std::vector<GenerationOutput> decode(const Decoder& decoder, Session& session,
                                       const DecodeControl& control) const {
    return shifts.empty() ? decoder.decode(session, generations, control)
                          : decode_shifting(decoder, session, generations, shifts, control);
  }
};

// Tells of a batch's answers as they grow.
class Narrator : public Observer {
 public:
  Narrator(std::span<Item> items, const TextControl& control) : items_(items), control_(control) {}

  void on_step(const StepEvent& event) override {
    Item& item = items_[static_cast<size_t>(event.generation)];
    StepEvent of_prompt = event;
    of_prompt.generation = item.answer.index;
    if (control_.observer != nullptr) control_.observer->on_step(of_prompt);
    for (const int32_t position : event.positions) {
      const auto place = static_cast<size_t>(position);
      if (item.steps.size() <= place) item.steps.resize(place + 1, event.step);
      item.steps[place] = event.step;
    }
    for (TextPiece& piece : std::exchange(item.new_pieces, {})) {
      const auto place = static_cast<size_t>(piece.position);
      piece.step = place < item.steps.size() ? item.steps[place] : event.step;
      tell(item, piece);
    }
    item.last_step = event.step;
  }

  void on_shift(const ShiftEvent& event) override {
    ShiftEvent of_prompt = event;
    of_prompt.generation = items_[static_cast<size_t>(event.generation)].answer.index;
    if (control_.observer != nullptr) control_.observer->on_shift(of_prompt);
  }

  // Hands over what is held back and the answer itself.
  void finish(Item& item, const TextModel& model, const GenerationOutput& output) {
    TextAnswer& answer = item.answer;
    answer.tokens = output.tokens;
    answer.token_hash = hash_tokens(output.tokens);
    answer.forwards = output.forwards;
    answer.rows = output.rows;
    answer.shifts = output.shifts;
    answer.finish = finish_of(item, model, output);
    answer.matches = output.is_whole;
    if (answer.finish != Finish::kStopText) {
      const TextPiece rest{.index = answer.index,
                           .position = std::ssize(output.tokens),
                           .step = item.last_step,
                           .text = item.stream.finish()};
      if (!rest.text.empty()) tell(item, rest);
    }
    if (control_.observer != nullptr) control_.observer->on_answer(answer);
  }

 private:
  void tell(Item& item, const TextPiece& piece) {
    item.answer.text += piece.text;
    if (control_.observer != nullptr) control_.observer->on_piece(piece);
  }

  static Finish finish_of(const Item& item, const TextModel& model, const GenerationOutput& output) {
    if (!output.finished) return Finish::kStopped;
    if (item.stream.is_stopped()) return Finish::kStopText;
    if (std::ranges::binary_search(model.checkpoint().end_tokens, output.tokens.back()))
      return Finish::kEndToken;
    if (output.is_complete) return Finish::kComplete;
    const bool is_full =
        !item.shift && std::ssize(item.prompt) + std::ssize(output.tokens) == model.checkpoint().context();
    return is_full ? Finish::kContext : Finish::kLength;
  }

  std::span<Item> items_;
  const TextControl& control_;
};

std::vector<Item> make_items(const TextModel& model, const TextRequest& request) {
  const TextCheckpoint& checkpoint = model.checkpoint();
  std::shared_ptr<const Constraint> constraint;
  if (request.constraint) {
    constraint = std::make_shared<const TokenConstraint>(request.constraint->automaton, checkpoint.tokenizer);
  }
  std::vector<Item> items;
  for (const TextPrompt& prompt : request.prompts) {
    std::vector<int32_t> tokens = encode_prompt(checkpoint, request, prompt);
    const auto count = std::ssize(tokens);
    const std::optional<ContextShift> shift = shift_of(checkpoint, request, prompt, tokens);
    if (shift) tokens = fitted(tokens, *shift);
    items.push_back({.answer = {.index = std::ssize(items),
                                .seed = prompt.seed,
                                .prompt_tokens = count,
                                .prompt_dropped = count - std::ssize(tokens)},
                     .prompt = std::move(tokens),
                     .limit = answer_limit(checkpoint, request, count),
                     .shift = shift,
                     .constraint = constraint,
                     .stream = TextStream(checkpoint.tokenizer, request.stops)});
  }
  return items;
}

Batch make_batch(const TextModel& model, const TextRequest& request, std::span<Item> items) {
  Batch batch;
  for (Item& item : items) {
    const auto add_piece = [&item, position = int64_t{0}](int32_t token) mutable {
      item.new_pieces.push_back({.index = item.answer.index,
                                 .position = position++,
                                 .token = token,
                                 .text = item.stream.push(token)});
      return item.stream.is_stopped();
    };
    batch.add(make_generation(model, request, item, add_piece), item.shift);
  }
  return batch;
}

// Decodes a batch again, one token a forward. Stop texts end it as they ended the first run.
void check_batch(const TextModel& model, const TextRequest& request, std::span<const Item> items,
                 std::span<const GenerationOutput> outputs, const TextControl& control, TextResult& result) {
  const StopWatch watch(result.check_seconds);
  Batch batch;
  for (const Item& item : items) {
    const auto stream = std::make_shared<TextStream>(model.checkpoint().tokenizer, request.stops);
    const auto is_end = [stream](int32_t token) {
      stream->push(token);
      return stream->is_stopped();
    };
    batch.add(make_generation(model, request, item, is_end), item.shift);
  }
  const auto sequential = make_decoder({.name = "sequential"});
  Session session(model.step_model(), model.backend(), batch.room(*sequential));
  const auto expected = batch.decode(*sequential, session, {.stop = control.stop});
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!expected[i].finished || !outputs[i].finished) continue;
    result.checks.push_back(compare_outputs(items[i].answer.index, outputs[i], expected[i]));
    if (control.observer != nullptr) control.observer->on_check(result.checks.back());
  }
}

std::unique_ptr<Decoder> decoder_of(const TextModels& models, const TextRequest& request) {
  Drafters drafters{.backend = models.model.backend()};
  if (models.draft != nullptr) drafters.model = &models.draft->step_model();
  if (models.heads != nullptr) drafters.heads = &models.heads->heads();
  return make_decoder(request.decoder, drafters);
}

// Adds what a batch's session counted.
void add(const Statistics& batch, Statistics& sum) {
  sum.forwards += batch.forwards;
  sum.prompt_forwards += batch.prompt_forwards;
  sum.rows += batch.rows;
  sum.prompt_rows += batch.prompt_rows;
  sum.prompt_rows_kept += batch.prompt_rows_kept;
  sum.tokens += batch.tokens;
  for (const auto& [length, times] : batch.accepted) sum.accepted[length] += times;
  sum.prompt_seconds += batch.prompt_seconds;
  sum.decode_seconds += batch.decode_seconds;
  sum.sample_seconds += batch.sample_seconds;
  sum.steps += batch.steps;
  sum.steps_off += batch.steps_off;
  sum.drafted_tokens += batch.drafted_tokens;
  sum.right_tokens += batch.right_tokens;
  sum.draft_forwards += batch.draft_forwards;
  sum.draft_rows += batch.draft_rows;
  sum.draft_prompt_forwards += batch.draft_prompt_forwards;
  sum.draft_prompt_rows += batch.draft_prompt_rows;
  sum.draft_seconds += batch.draft_seconds;
}

}  // namespace

std::string_view finish_name(Finish finish) {
  switch (finish) {
    case Finish::kEndToken:
      return "end token";
    case Finish::kStopText:
      return "stop text";
    case Finish::kLength:
      return "length";
    case Finish::kContext:
      return "context";
    case Finish::kStopped:
      return "stopped";
    case Finish::kComplete:
      return "complete";
  }
  return "?";
}

Session& TextRunner::session_for(Session::Options room) {
  if (session_ != nullptr && room.sequences <= room_.sequences && room.entries <= room_.entries) {
    session_->statistics() = {};
    return *session_;
  }
  if (session_ != nullptr) {
    // A conversation grows with every turn; it gets a cache of twice the size now and then, not each time.
    room.sequences = std::max(room.sequences, room_.sequences);
    room.entries = std::max(room.entries, std::min(2 * room_.entries, models_.model.checkpoint().context()));
  }
  room.kept_prompts = kKeptPrompts;
  room_ = room;
  session_.reset();  // before the new one needs memory
  session_ = std::make_unique<Session>(models_.model.step_model(), models_.model.backend(), room_);
  return *session_;
}

TextResult TextRunner::run(const TextRequest& request, const TextControl& control, int64_t batch) {
  const TextModels& models = models_;
  const TextModel& model = models.model;
  TextResult result{.volley = std::string(version()),
                    .request = request,
                    .device = model.backend()->info().name,
                    .dtype = std::string(model.storage().name())};
  const auto decoder = decoder_of(models, request);
  {
    const StopWatch watch(result.total_seconds);
    std::vector<Item> items = make_items(model, request);
    const auto batch_at = [&](size_t begin) {
      return std::span(items).subspan(begin, std::min(static_cast<size_t>(batch), items.size() - begin));
    };
    // One cache for all batches, so that none grows in between.
    Session::Options most{.sequences = 0};
    for (size_t begin = 0; begin < items.size(); begin += static_cast<size_t>(batch)) {
      const Session::Options room = make_batch(model, request, batch_at(begin)).room(*decoder);
      most.sequences = std::max(most.sequences, room.sequences);
      most.entries = std::max(most.entries, room.entries);
    }
    for (size_t begin = 0; begin < items.size() && !control.stop.stop_requested();
         begin += static_cast<size_t>(batch)) {
      const std::span<Item> some = batch_at(begin);
      const Batch answers = make_batch(model, request, some);
      Session& session = session_for(most);
      Narrator narrator(some, control);
      const auto outputs =
          answers.decode(*decoder, session, {.observer = &narrator, .stop = control.stop, .pool = &pool_});
      for (size_t i = 0; i < some.size(); ++i) {
        if (outputs[i].tokens.empty()) continue;  // stopped before it began
        narrator.finish(some[i], model, outputs[i]);
        result.answers.push_back(some[i].answer);
        result.interrupted = result.interrupted || !outputs[i].finished;
      }
      add(session.statistics(), result.statistics);
      if (request.check == Check::kYes && !control.stop.stop_requested())
        check_batch(model, request, some, outputs, control, result);
    }
  }
  if (const auto hash = model.weights_hash()) result.weights["model"] = *hash;
  if (models.draft != nullptr) {
    if (const auto hash = models.draft->weights_hash()) result.weights["draft"] = *hash;
  }
  if (models.heads != nullptr) {
    if (const auto hash = models.heads->weights_hash()) result.weights["heads"] = *hash;
  }
  result.statistics.peak_bytes = model.backend()->peak_bytes();
  result.interrupted = result.interrupted || result.answers.size() < request.prompts.size() ||
                       (request.check == Check::kYes && result.checks.size() < request.prompts.size());
  return result;
}

BatchBytes batch_bytes(const TextModels& models, const TextRequest& request) {
  const TextModel& model = models.model;
  const auto decoder = decoder_of(models, request);
  std::vector<Item> items = make_items(model, request);
  const Batch batch = make_batch(model, request, items);
  Session::Options room = batch.room(*decoder);
  room.kept_prompts = kKeptPrompts;
  const int64_t before = model.backend()->allocated_bytes();
  const Session session(model.step_model(), model.backend(), room);
  BatchBytes bytes{.cache = model.backend()->allocated_bytes() - before};
  if (!request.constraint || fills_hidden_places(decoder_model(request.decoder))) return bytes;
  for (const Generation& generation : batch.generations) {
    // The rows of a step are what its entries are more than prompt and output.
    const int64_t rows =
        decoder->entries(generation) - std::ssize(generation.prompt.rows) - generation.max_tokens;
    bytes.constraint += std::max<int64_t>(rows, 1) * model.step_model().traits().vocab_size *
                        static_cast<int64_t>(sizeof(float));
  }
  return bytes;
}

TextResult run_text(const TextModels& models, const TextRequest& request, const TextControl& control,
                    int64_t batch) {
  return TextRunner(models).run(request, control, batch);
}

}  // namespace volley::text
