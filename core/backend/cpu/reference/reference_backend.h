#pragma once

#include <memory>

#include "core/backend/backend.h"

namespace volley {

// `cpu-reference`: every operation as plain loops in f32 on one thread. It is the oracle that other backends
// are tested against and is never optimised.
std::shared_ptr<const Backend> make_reference_backend();

}  // namespace volley
