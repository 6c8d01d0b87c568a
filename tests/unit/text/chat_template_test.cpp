// Chats as the checkpoints' own templates render them (tools/chat_cases.py).
#include "text/chat_template.h"

#include <gtest/gtest.h>

#include "core/io/json.h"
#include "tests/unit/text/message_of.h"

namespace volley::text {
namespace {

const nlohmann::json kCases = read_json_file(VOLLEY_CHAT_CASES);
const nlohmann::json kTemplates = read_json_file(VOLLEY_CHAT_TEMPLATES);

TEST(ChatTemplate, RendersAsTheCheckpointsTemplates) {
  int64_t rendered = 0, refused = 0;
  for (const std::string_view name : chat_format_names()) {
    ASSERT_TRUE(kCases.contains(name)) << name;
    const ChatFormat format = chat_format_by_name(name);
    EXPECT_EQ(name_of(format), name);
    for (const nlohmann::json& item : kCases[std::string(name)]["cases"]) {
      std::vector<ChatMessage> messages;
      for (const nlohmann::json& message : item["messages"]) {
        messages.push_back({message["role"].get<std::string>(), message["content"].get<std::string>()});
      }
      ChatRendering rendering;
      if (!item["add_generation_prompt"].get<bool>()) rendering.answer = ChatRendering::Answer::kNone;
      if (!item.value("enable_thinking", true)) rendering.thinking = Thinking::kSkipped;
      SCOPED_TRACE(std::string(name) + ": " + item["messages"].dump());
      std::string text;
      const std::string message = message_of([&] { text = render_chat(format, messages, rendering); });
      if (item.contains("error")) {
        EXPECT_TRUE(message.starts_with("chat format ")) << message;
        ++refused;
        continue;
      }
      // Of roles that a template puts into the text unasked, or passes over, we say that they are none.
      const bool is_known_role = messages.back().role != "wizard";
      if (!is_known_role) {
        EXPECT_EQ(message,
                  "chat format " + std::string(name) + ": role 'wizard': expected system, user or assistant");
        continue;
      }
      // mistral-v0.1 and llama2 check every message's turn but have no word for a system message within.
      EXPECT_EQ(message, "no error");
      EXPECT_EQ(text, item["text"].get<std::string>());
      ++rendered;
    }
  }
  EXPECT_GT(rendered, 230);
  EXPECT_GT(refused, 30);
}

// Whole templates of a package, some of them of models whose format is none of ours, much though they say
// what another one says.
TEST(ChatTemplate, RecognizesPublishedTemplatesAndNoOthers) {
  int64_t known = 0, unknown = 0;
  for (const nlohmann::json& item : kTemplates["templates"]) {
    const auto name = item["name"].get<std::string>();
    const auto jinja = item["template"].get<std::string>();
    if (item["format"].is_null()) {
      EXPECT_TRUE(message_of([&] { recognize_chat_template(jinja, name); }).starts_with(name + ": its chat"))
          << name;
      ++unknown;
      continue;
    }
    EXPECT_EQ(name_of(recognize_chat_template(jinja, name)), item["format"].get<std::string>()) << name;
    ++known;
  }
  EXPECT_EQ(known, 7);
  EXPECT_EQ(unknown, 4);
}

TEST(ChatTemplate, RecognizesTemplates) {
  // As it lies in the metadata of SmolLM2-135M-Instruct.
  EXPECT_EQ(recognize_chat_template(
                "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ "
                "'<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
                "Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + "
                "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ "
                "'<|im_start|>assistant\n' }}{% endif %}",
                "model"),
            ChatFormat::kSmolLm2);
  EXPECT_EQ(recognize_chat_template("{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
                                    "'<|im_end|>' + '\n'}}",
                                    "model"),
            ChatFormat::kChatMl);
  EXPECT_EQ(recognize_chat_template(
                "'<|start_header_id|>' + message['content'] | trim + '<|eot_id|>' bos_token", "model"),
            ChatFormat::kLlama3);
  // Parts of those whose licences let nobody pass on the whole.
  EXPECT_EQ(recognize_chat_template("<|start_header_id|> tools \"Cutting Knowledge Date: December 2023\\n\" "
                                    "\"Today Date: \" + date_string <|eot_id|>",
                                    "model"),
            ChatFormat::kLlama31);
  EXPECT_EQ(
      recognize_chat_template("'<<SYS>>\\n' bos_token + '[INST] ' + content.strip() + ' [/INST]'", "model"),
      ChatFormat::kLlama2);
}

TEST(ChatTemplate, UnknownOnesListTheNames) {
  constexpr const char* kNames =
      "chatml, smollm2, qwen2.5, qwen3, llama2, llama3, llama3.1, mistral-v0.1, mistral-v0.2, mistral, "
      "mistral-tekken";
  EXPECT_EQ(message_of([] { chat_format_by_name("alpaca"); }),
            std::string("chat format 'alpaca' is not known; there are ") + kNames);
  for (const char* jinja :
       {"", "{{ messages }}", "<|im_start|> tools <|im_end|>", "[INST] [SYSTEM_PROMPT]",
        "<|im_start|>system\nYou are a dolphin<|im_end|> message['content'] + '<|im_end|>'"}) {
    EXPECT_EQ(
        message_of([&] { recognize_chat_template(jinja, "m.gguf"); }),
        std::string("m.gguf: its chat template is none of those written out here; name one of ") + kNames);
  }
  EXPECT_EQ(message_of([] { render_chat(ChatFormat::kChatMl, {}); }), "chat: no messages");
}

}  // namespace
}  // namespace volley::text
