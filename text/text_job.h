#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "core/decode/check.h"
#include "core/decode/draft_pool.h"
#include "core/decode/observer.h"
#include "core/decode/statistics.h"
#include "text/heads_checkpoint.h"
#include "text/text_request.h"

namespace volley::text {

using volley::CheckOutcome;  // counted by prompt

// Why an answer ended.
enum class Finish : uint8_t {
  kEndToken,  // the model ended it
  kStopText,  // one of the request's stops came
  kLength,    // max_tokens
  kContext,   // the model's context was full
  kStopped,   // the run was stopped
  kComplete,  // nothing may follow what the request's constraint asks for
};
// "end token", "stop text", "length", "context", "stopped", "complete"
std::string_view finish_name(Finish finish);

// What is reported of an answer.
struct TextAnswer {
  int64_t index = 0;  // of its prompt
  uint64_t seed = 0;
  std::string text;  // UTF-8; U+FFFD for what the model wrote that is not
  Finish finish = Finish::kStopped;
  bool matches = true;          // the request's constraint, if it has one
  int64_t prompt_tokens = 0;    // as it was said
  int64_t prompt_dropped = 0;   // of them, for which the context had no room
  int64_t shifts = 0;           // times that the context was full and a part of it dropped
  std::vector<int32_t> tokens;  // an end token included
  std::string token_hash;
  int64_t forwards =
      0;             // decode passes it took part in: the prompt's, which gives the first token, not counted
  int64_t rows = 0;  // rows it had in them

  bool operator==(const TextAnswer&) const = default;
};

// The text that one token added to an answer.
struct TextPiece {
  int64_t index = 0;     // of the prompt
  int64_t position = 0;  // of the token in the answer
  int64_t step = 0;      // that made it, from 0 (the prompt's own token)
  int32_t token = -1;
  // Whole characters. What is held back (parts of characters, what may be a stop text's beginning) comes with
  // a later token; what no token brings comes with position tokens.size() and token -1.
  std::string text;
};

// Tokens of an answer that its forwards gave: without the first where that is of the prompt's own forward,
// and those of what ran again after shifts.
int64_t forward_tokens(const TextRequest& request, const TextAnswer& answer);

// Receives what a run makes, on the thread that runs it.
class TextObserver {
 public:
  virtual ~TextObserver() = default;
  // A decoding step; `generation` is the prompt.
  virtual void on_step(const StepEvent& event) { (void)event; }
  // `generation` is the prompt.
  virtual void on_shift(const ShiftEvent& event) { (void)event; }
  // After on_step, for each of its tokens.
  virtual void on_piece(const TextPiece& piece) { (void)piece; }
  // An answer is whole, or as long as it got before the run was stopped.
  virtual void on_answer(const TextAnswer& answer) { (void)answer; }
  virtual void on_check(const CheckOutcome& outcome) { (void)outcome; }
};

struct TextControl {
  TextObserver* observer = nullptr;
  std::stop_token stop;
};

struct TextResult {
  std::string volley;
  TextRequest request;
  std::map<std::string, std::string> weights;
  std::string device;
  std::string dtype;
  int64_t threads = 0;              // 0: not known
  std::vector<TextAnswer> answers;  // in the prompts' order; of a stopped run the last may be unfinished
  std::vector<CheckOutcome> checks;
  Statistics statistics;
  double load_seconds = 0.0;  // the caller's to fill in
  double check_seconds = 0.0;
  double total_seconds = 0.0;  // of the run, loading left out
  bool interrupted = false;

  bool is_check_equal() const;
  // Sums over the answers.
  int64_t forward_tokens() const;
  int64_t tokens() const;
  int64_t forwards() const;
  int64_t rows() const;
  int64_t prompt_tokens() const;
  // Seconds behind the prompts' forwards; all of a draft model's and of heads are among them.
  double answer_seconds() const { return total_seconds - check_seconds - statistics.prompt_seconds; }
};

// What a request runs on. All are made on one backend.
struct TextModels {
  const TextModel& model;
  const TextModel* draft = nullptr;  // the small one of a decoder that needs one; of the model's vocabulary
  const TextHeads* heads = nullptr;  // of the model, for a decoder that needs them
};

// Prompts that are answered together at most; results do not depend on it.
inline constexpr int64_t kTextBatch = 8;

// Answers requests one after the other. The cache stays, and with it the beginnings of prompts (in chunks of
// 256 tokens): what a prompt has in common with an earlier one, as a conversation with its last turn, does
// not run again. So do the texts that some decoders draft from (option `pool`). Answers do not depend on it.
// Of a draft model's cache nothing stays.
class TextRunner {
 public:
  // The models must outlive the runner.
  explicit TextRunner(const TextModels& models) : models_(models) {}

  // Answers the prompts of a request whose decoder was chosen (choose_decoder), in true batches of at most
  // `batch`. Text is handed over as it comes. Throws Error, before anything is made, for a prompt that
  // encode_prompt refuses.
  TextResult run(const TextRequest& request, const TextControl& control, int64_t batch = kTextBatch);

 private:
  Session& session_for(Session::Options room);

  TextModels models_;
  DraftPool pool_;
  Session::Options room_;
  std::unique_ptr<Session> session_;
};

// The same for one request.
TextResult run_text(const TextModels& models, const TextRequest& request, const TextControl& control,
                    int64_t batch = kTextBatch);

// What the prompts of a request, answered together, take of the models' backend besides their steps' own
// memory: bytes of the cache, and of what a constraint adds to the logits of a step at most. Nothing else may
// allocate there meanwhile. Throws Error as TextRunner::run does.
struct BatchBytes {
  int64_t cache = 0;
  int64_t constraint = 0;
};
BatchBytes batch_bytes(const TextModels& models, const TextRequest& request);

inline constexpr std::string_view kTextSchema = "volley.text/1";
nlohmann::json to_json(const TextResult& result);
// Throws Error "<subject>: key ...".
TextResult read_text_result(const nlohmann::json& json, const std::string& subject);

}  // namespace volley::text
