#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/io/mapped_file.h"
#include "core/io/weight_source.h"

namespace volley {

// What a `torch.save` file (the zip form of PyTorch 1.6 and later) holds.
struct TorchCheckpoint {
  std::vector<NamedTensor> tensors;  // sorted by name; views into the parsed bytes or into `copies`
  std::vector<std::vector<std::byte>> copies;
};

enum class CrcCheck { kVerify, kSkip };

// Finds the state dict - the pickled value itself, or what it holds under "model", "module", "state_dict"
// or "model_state_dict" - and its tensors. Values of it that are no tensors are left out. Nothing in the
// file is executed: calls of the few known functions are read as data, other globals are faults.
// Views that are not row-major (a transposed weight, say) are copied, in all no more than the file's size.
// CRCs of the members used are compared; kSkip is for those who read names and shapes
// only, and for fuzzing, which could not get past them.
// Ref: pytorch torch/serialization.py (_save, _load), torch/_utils.py (_rebuild_tensor_v2)
Result<TorchCheckpoint> parse_torch_zip(std::span<const std::byte> file, CrcCheck crc = CrcCheck::kVerify);

// One PyTorch checkpoint, mapped.
class TorchZipFile : public WeightSource {
 public:
  static Result<std::unique_ptr<TorchZipFile>> open(const std::string& path);
  // `path` is for messages; the bytes are the mapping's.
  static Result<std::unique_ptr<TorchZipFile>> from_mapping(MappedFile file, std::string path,
                                                            CrcCheck crc = CrcCheck::kVerify);

  const std::vector<NamedTensor>& tensors() const override { return checkpoint_.tensors; }
  const std::string& path() const override { return path_; }

 private:
  TorchZipFile(MappedFile file, TorchCheckpoint checkpoint, std::string path);

  MappedFile file_;
  TorchCheckpoint checkpoint_;
  std::string path_;
};

}  // namespace volley
