#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace volley::text {

// The chat formats that are written out here. Templates of checkpoints are Jinja programs; none is run.
enum class ChatFormat {
  kChatMl,         // "chatml": <|im_start|>role ... <|im_end|>
  kSmolLm2,        // "smollm2": ChatML with SmolLM's system message where there is none
  kQwen25,         // "qwen2.5": ChatML with Qwen's
  kQwen3,          // "qwen3": ChatML; earlier answers without their thinking
  kLlama2,         // "llama2": [INST] <<SYS>> ... [/INST]
  kLlama3,         // "llama3": <|start_header_id|>role<|end_header_id|> ... <|eot_id|>
  kLlama31,        // "llama3.1", also of 3.2 and 3.3: the system message begins with two dates
  kMistralV01,     // "mistral-v0.1": [INST] x [/INST]y</s> and a space
  kMistralV02,     // "mistral-v0.2": the same without the space; no system message
  kMistralV03,     // "mistral": [INST] x[/INST] y</s>; the system message goes with the last question
  kMistralTekken,  // "mistral-tekken" of Nemo: the same without spaces
};

// All names, in the order above.
std::vector<std::string_view> chat_format_names();
std::string_view name_of(ChatFormat format);

// Throws Error of kind kUsage that lists the names.
ChatFormat chat_format_by_name(std::string_view name);

// Recognises a checkpoint's template by what only it says. Throws Error "<subject>: ..." that lists the
// names when it is none of them.
ChatFormat recognize_chat_template(std::string_view jinja, const std::string& subject);

struct ChatMessage {
  std::string role;  // "system" (only first, where the format says so), "user", "assistant"
  std::string content;
};

enum class Thinking { kAllowed, kSkipped };

struct ChatRendering {
  // Whether the text ends with the beginning of the assistant's answer.
  enum class Answer { kNone, kBegun } answer = Answer::kBegun;
  Thinking thinking = Thinking::kAllowed;  // of qwen3: kSkipped begins the answer with an empty thought
  std::string date = "26 Jul 2024";        // of llama3.1
  std::string bos, eos;                    // as the vocabulary spells them; empty: the format's own
};

// The conversation as the model was trained to see it, special tokens spelled out: encode it with
// Frame::kNone. Throws Error of kind kUsage where the format has no place for the messages: none at all, a
// role it does not know, users and assistants that do not alternate.
std::string render_chat(ChatFormat format, const std::vector<ChatMessage>& messages,
                        const ChatRendering& rendering = {});

}  // namespace volley::text
