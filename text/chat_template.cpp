// Ref: the chat_template strings that the checkpoints carry; tools/chat_cases.py renders those for the tests.
#include "text/chat_template.h"

#include <array>

#include "core/base/error.h"
#include "core/io/untrusted_text.h"
#include "text/tokenizer/unicode.h"

namespace volley::text {
namespace {

constexpr std::string_view kSmolLm2System =
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face";
constexpr std::string_view kQwen25System =
    "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.";

struct Format {
  ChatFormat format;
  std::string_view name;
  std::string_view bos, eos;
};

constexpr std::array<Format, 11> kFormats{{{ChatFormat::kChatMl, "chatml", "", ""},
                                           {ChatFormat::kSmolLm2, "smollm2", "", ""},
                                           {ChatFormat::kQwen25, "qwen2.5", "", ""},
                                           {ChatFormat::kQwen3, "qwen3", "", ""},
                                           {ChatFormat::kLlama2, "llama2", "<s>", "</s>"},
                                           {ChatFormat::kLlama3, "llama3", "<|begin_of_text|>", ""},
                                           {ChatFormat::kLlama31, "llama3.1", "<|begin_of_text|>", ""},
                                           {ChatFormat::kMistralV01, "mistral-v0.1", "<s>", "</s>"},
                                           {ChatFormat::kMistralV02, "mistral-v0.2", "<s>", "</s>"},
                                           {ChatFormat::kMistralV03, "mistral", "<s>", "</s>"},
                                           {ChatFormat::kMistralTekken, "mistral-tekken", "<s>", "</s>"}}};

const Format& find(ChatFormat format) {
  for (const Format& known : kFormats) {
    if (known.format == format) return known;
  }
  throw Error("no chat format of that number");
}

std::string all_names() {
  std::string names;
  for (const Format& known : kFormats) names += (names.empty() ? "" : ", ") + std::string(known.name);
  return names;
}

// As Python's str.strip(): white space and the four separators of ASCII.
std::string_view trim(std::string_view text) {
  const auto is_space = [](char32_t code) { return is_white_space(code) || (code >= 0x1c && code <= 0x1f); };
  while (!text.empty()) {
    const Character first = character_at(text, 0);
    if (!is_space(first.code)) break;
    text.remove_prefix(first.bytes);
  }
  while (!text.empty()) {
    const size_t last = last_character(text, text.size());
    if (!is_space(character_at(text, last).code)) break;
    text = text.substr(0, last);
  }
  return text;
}

std::string_view trim_newlines(std::string_view text) {
  while (text.starts_with('\n')) text.remove_prefix(1);
  while (text.ends_with('\n')) text.remove_suffix(1);
  return text;
}

std::string joined(std::initializer_list<std::string_view> parts) {
  std::string text;
  for (const std::string_view part : parts) text += part;
  return text;
}

using Messages = std::vector<ChatMessage>;

bool begins_with_system(const Messages& messages) {
  return messages.front().role == "system";
}

void check_roles(const Format& format, const Messages& messages) {
  if (messages.empty()) throw Error("chat: no messages", ErrorKind::kUsage);
  for (const ChatMessage& message : messages) {
    if (message.role == "system" || message.role == "user" || message.role == "assistant") continue;
    throw Error("chat format " + std::string(format.name) + ": role " + quote(message.role) +
                    ": expected system, user or assistant",
                ErrorKind::kUsage);
  }
}

// User and assistant in turns, from messages[first] on.
void check_turns(const Format& format, const Messages& messages, size_t first) {
  for (size_t i = first; i < messages.size(); ++i) {
    const std::string_view expected = (i - first) % 2 == 0 ? "user" : "assistant";
    if (messages[i].role == expected) continue;
    throw Error("chat format " + std::string(format.name) + ": message " + std::to_string(i) + " is of " +
                    quote(messages[i].role) + ", expected " + std::string(expected) +
                    ": users and assistants take turns",
                ErrorKind::kUsage);
  }
}

std::string chat_ml_message(std::string_view role, std::string_view content) {
  return joined({"<|im_start|>", role, "\n", content, "<|im_end|>\n"});
}

std::string render_chat_ml(const Messages& messages, std::string_view default_system) {
  std::string text;
  if (!default_system.empty() && !begins_with_system(messages)) {
    text = chat_ml_message("system", default_system);
  }
  for (const ChatMessage& message : messages) text += chat_ml_message(message.role, message.content);
  return text;
}

// An answer's thought and what follows it.
struct Answer {
  std::string_view thought, content;
};

Answer split_thought(std::string_view content) {
  constexpr std::string_view kBegin = "<think>", kEnd = "</think>";
  const size_t last = content.rfind(kEnd);
  if (last == content.npos) return {{}, content};
  std::string_view thought = content.substr(0, content.find(kEnd));
  while (thought.ends_with('\n')) thought.remove_suffix(1);
  if (const size_t begin = thought.rfind(kBegin); begin != thought.npos) {
    thought.remove_prefix(begin + kBegin.size());
  }
  std::string_view rest = content.substr(last + kEnd.size());
  while (rest.starts_with('\n')) rest.remove_prefix(1);
  return {trim_newlines(thought), rest};
}

// Only what follows the last question keeps its thoughts. Results of tools, which come as a user's message
// of that spelling, are no questions.
std::string render_qwen3(const Messages& messages) {
  size_t last_question = messages.size() - 1;
  for (size_t i = messages.size(); i-- > 0;) {
    const std::string_view content = messages[i].content;
    const bool is_result = content.starts_with("<tool_response>") && content.ends_with("</tool_response>");
    if (messages[i].role != "user" || is_result) continue;
    last_question = i;
    break;
  }
  std::string text;
  for (size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    if (message.role != "assistant") {
      text += chat_ml_message(message.role, message.content);
      continue;
    }
    const Answer answer = split_thought(message.content);
    const bool is_last = i + 1 == messages.size();
    if (i > last_question && (is_last || !answer.thought.empty())) {
      std::string_view content = answer.content;
      while (content.starts_with('\n')) content.remove_prefix(1);
      text += chat_ml_message(message.role, joined({"<think>\n", answer.thought, "\n</think>\n\n", content}));
    } else {
      text += chat_ml_message(message.role, answer.content);
    }
  }
  return text;
}

std::string llama3_message(std::string_view role, std::string_view content) {
  return joined({"<|start_header_id|>", role, "<|end_header_id|>\n\n", trim(content), "<|eot_id|>"});
}

std::string render_llama3(const Messages& messages, std::string_view bos) {
  std::string text(bos);
  for (const ChatMessage& message : messages) text += llama3_message(message.role, message.content);
  return text;
}

std::string render_llama31(const Messages& messages, std::string_view bos, std::string_view date) {
  const bool has_system = begins_with_system(messages);
  std::string text = joined({bos, "<|start_header_id|>system<|end_header_id|>\n\n",
                             "Cutting Knowledge Date: December 2023\nToday Date: ", date, "\n\n",
                             has_system ? trim(messages.front().content) : "", "<|eot_id|>"});
  for (size_t i = has_system ? 1 : 0; i < messages.size(); ++i) {
    text += llama3_message(messages[i].role, messages[i].content);
  }
  return text;
}

std::string render_llama2(const Messages& messages, std::string_view bos, std::string_view eos) {
  const size_t first = begins_with_system(messages) ? 1 : 0;
  std::string text;
  for (size_t i = first; i < messages.size(); ++i) {
    const std::string_view content = messages[i].content;
    if (messages[i].role == "assistant") {
      text += joined({" ", trim(content), " ", eos});
      continue;
    }
    const std::string with_system =
        i == 1 && first == 1 ? joined({"<<SYS>>\n", messages.front().content, "\n<</SYS>>\n\n", content})
                             : std::string(content);
    text += joined({bos, "[INST] ", trim(with_system), " [/INST]"});
  }
  return text;
}

// v0.1 and v0.2, which know no system message.
std::string render_mistral(const Messages& messages, std::string_view bos, std::string_view eos,
                           std::string_view behind_answer) {
  std::string text(bos);
  for (const ChatMessage& message : messages) {
    text += message.role == "user" ? joined({"[INST] ", message.content, " [/INST]"})
                                   : joined({message.content, eos, behind_answer});
  }
  return text;
}

// v0.3 and Nemo: `space` is what stands behind [INST] and before an answer.
std::string render_mistral_tools(const Messages& messages, std::string_view bos, std::string_view eos,
                                 std::string_view space) {
  const bool has_system = begins_with_system(messages);
  std::string text(bos);
  for (size_t i = has_system ? 1 : 0; i < messages.size(); ++i) {
    const std::string_view content = messages[i].content;
    if (messages[i].role == "assistant") {
      text += joined({space, space.empty() ? content : trim(content), eos});
    } else if (has_system && i + 1 == messages.size()) {
      text += joined({"[INST]", space, messages.front().content, "\n\n", content, "[/INST]"});
    } else {
      text += joined({"[INST]", space, content, "[/INST]"});
    }
  }
  return text;
}

}  // namespace

std::vector<std::string_view> chat_format_names() {
  std::vector<std::string_view> names;
  for (const Format& known : kFormats) names.push_back(known.name);
  return names;
}

std::string_view name_of(ChatFormat format) {
  return find(format).name;
}

ChatFormat chat_format_by_name(std::string_view name) {
  for (const Format& known : kFormats) {
    if (known.name == name) return known.format;
  }
  throw Error("chat format " + quote(name) + " is not known; there are " + all_names(), ErrorKind::kUsage);
}

ChatFormat recognize_chat_template(std::string_view jinja, const std::string& subject) {
  const auto says = [&](std::string_view part) { return jinja.find(part) != jinja.npos; };
  if (says("<|start_header_id|>") && says("<|eot_id|>")) {
    if (says("Cutting Knowledge Date: December 2023") && says("Today Date: ")) return ChatFormat::kLlama31;
    if (!says("tools") && says("bos_token") && says("| trim")) return ChatFormat::kLlama3;
  } else if (says("[INST]")) {
    if (says("<<SYS>>")) {
      if (says("bos_token + '[INST] '") && says("content.strip()")) return ChatFormat::kLlama2;
    } else if (says("[AVAILABLE_TOOLS] [") && says("\"[INST] \"")) {
      if (says("loop.last and system_message is defined")) return ChatFormat::kMistralV03;
    } else if (says("[AVAILABLE_TOOLS][") && says("\"[INST]\"")) {
      if (says("loop.last and system_message is defined")) return ChatFormat::kMistralTekken;
    } else if (says("'[INST] ' + message['content'] + ' [/INST]'") && !says("system_message")) {
      if (says("message['content'] + eos_token + ' '")) return ChatFormat::kMistralV01;
      if (says("message['content'] + eos_token}")) return ChatFormat::kMistralV02;
    }
  } else if (says("<|im_start|>") && says("<|im_end|>")) {
    // SmolLM 3 has the sentence, too.
    if (says(kSmolLm2System) && says("messages[0]['role'] != 'system'")) return ChatFormat::kSmolLm2;
    if (says(kQwen25System)) return ChatFormat::kQwen25;
    // Of Qwen 3.5 an answer begins with a thought, unless it skips it; others begin with a token.
    const bool is_other = says("{{- '<think>\\n' }}") || says("bos_token");
    if (says("last_query_index") && says("enable_thinking") && says("reasoning_content") && !is_other) {
      return ChatFormat::kQwen3;
    }
    // A loop over the messages and nothing else.
    const bool has_more = says("system") || says("tool") || says("think") || says("bos_token");
    if (!has_more && says("message['content'] + '<|im_end|>'")) return ChatFormat::kChatMl;
  }
  throw Error(subject + ": its chat template is none of those written out here; name one of " + all_names());
}

std::string render_chat(ChatFormat format, const Messages& messages, const ChatRendering& rendering) {
  const Format& known = find(format);
  const std::string_view bos = rendering.bos.empty() ? known.bos : rendering.bos;
  const std::string_view eos = rendering.eos.empty() ? known.eos : rendering.eos;
  check_roles(known, messages);
  const bool begins = rendering.answer == ChatRendering::Answer::kBegun;
  constexpr std::string_view kChatMlAnswer = "<|im_start|>assistant\n";
  constexpr std::string_view kLlama3Answer = "<|start_header_id|>assistant<|end_header_id|>\n\n";
  const auto with_answer = [&](std::string text, std::string_view beginning) {
    if (begins) text += beginning;
    return text;
  };
  switch (format) {
    case ChatFormat::kChatMl:
      return with_answer(render_chat_ml(messages, ""), kChatMlAnswer);
    case ChatFormat::kSmolLm2:
      return with_answer(render_chat_ml(messages, kSmolLm2System), kChatMlAnswer);
    case ChatFormat::kQwen25:
      return with_answer(render_chat_ml(messages, kQwen25System), kChatMlAnswer);
    case ChatFormat::kQwen3:
      return with_answer(render_qwen3(messages), rendering.thinking == Thinking::kSkipped
                                                     ? "<|im_start|>assistant\n<think>\n\n</think>\n\n"
                                                     : kChatMlAnswer);
    case ChatFormat::kLlama3:
      return with_answer(render_llama3(messages, bos), kLlama3Answer);
    case ChatFormat::kLlama31:
      return with_answer(render_llama31(messages, bos, rendering.date), kLlama3Answer);
    case ChatFormat::kMistralV01:
    case ChatFormat::kMistralV02:
      check_turns(known, messages, 0);
      return render_mistral(messages, bos, eos, format == ChatFormat::kMistralV01 ? " " : "");
    case ChatFormat::kLlama2:
      check_turns(known, messages, begins_with_system(messages) ? 1 : 0);
      return render_llama2(messages, bos, eos);
    case ChatFormat::kMistralV03:
    case ChatFormat::kMistralTekken:
      check_turns(known, messages, begins_with_system(messages) ? 1 : 0);
      break;
  }
  return render_mistral_tools(messages, bos, eos, format == ChatFormat::kMistralV03 ? " " : "");
}

}  // namespace volley::text
