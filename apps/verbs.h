#pragma once

#include <functional>
#include <stop_token>
#include <string>

#include "apps/console.h"
#include "apps/flags.h"
#include "apps/interrupt.h"
#include "core/base/error.h"

namespace volley::apps {

// What a verb may use of the program around it.
struct Program {
  Console& console;
  std::stop_token stop;
  InterruptGuard* interrupts = nullptr;  // that request it; null: nothing does
};

// Whether flags that are not given take values of the environment and of the configuration file.
enum class Defaults : uint8_t { kApplied, kNone };

// A verb of the command line: its parser, the schema of its --json, what it does. Returns the exit code.
struct Verb {
  CLI::App* parser = nullptr;
  std::string schema;
  const SharedFlags* flags = nullptr;
  Defaults defaults = Defaults::kApplied;
  std::function<int(Program&)> run;
};

inline constexpr int kExitDone = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitSomeFailed = 3;
inline constexpr int kExitModelMissing = 4;
inline constexpr int kExitInterrupted = 130;

// A verb that was stopped and has nothing to keep.
class Interrupted : public Error {
 public:
  explicit Interrupted(std::string message) : Error(std::move(message)) {}
};

// Each adds its parser to the program's. One file each.
Verb add_image(CLI::App& program);
Verb add_text(CLI::App& program);
Verb add_info(CLI::App& program);
Verb add_verify(CLI::App& program);
Verb add_decoders(CLI::App& program);
Verb add_devices(CLI::App& program);
Verb add_completion(CLI::App& program);
Verb add_help(CLI::App& program);
std::vector<Verb> add_models(CLI::App& program);
std::vector<Verb> add_bench(CLI::App& program);

}  // namespace volley::apps
