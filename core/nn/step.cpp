#include "core/nn/step.h"

#include "core/base/error.h"

namespace volley {

void StepModel::project_memory(const MemoryInputs&) const {
  throw Error("model " + traits().family + " takes no memory");
}

}  // namespace volley
