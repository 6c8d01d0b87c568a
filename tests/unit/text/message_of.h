#pragma once

#include <string>

#include "core/base/error.h"

namespace volley::text {

// What an action's Error says.
std::string message_of(const auto& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace volley::text
