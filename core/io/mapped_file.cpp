#include "core/io/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <system_error>

namespace volley {
namespace {

Fault system_fault(const char* action, int code) {
  return Fault{std::string(action) + ": " + std::generic_category().message(code)};
}

struct Descriptor {
  int number;
  ~Descriptor() {
    if (number >= 0) ::close(number);
  }
};

}  // namespace

Result<MappedFile> MappedFile::open(const std::string& path) {
  // Without O_NONBLOCK a named pipe would hang here until somebody writes to it.
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.number < 0) return system_fault("cannot open", errno);
  struct stat status {};
  if (::fstat(file.number, &status) != 0) return system_fault("cannot stat", errno);
  if (S_ISDIR(status.st_mode)) return Fault{"is a directory, expected a file"};
  if (!S_ISREG(status.st_mode)) return Fault{"is not a regular file"};
  const auto size = static_cast<uint64_t>(status.st_size);
  if (size == 0) return MappedFile();
  if (size > SIZE_MAX)
    return Fault{"file of " + std::to_string(size) + " bytes does not fit the address space"};
  void* data = ::mmap(nullptr, static_cast<size_t>(size), PROT_READ, MAP_PRIVATE, file.number, 0);
  if (data == MAP_FAILED) return system_fault("cannot map", errno);
  return MappedFile({static_cast<const std::byte*>(data), static_cast<size_t>(size)});
}

void MappedFile::release(std::span<const std::byte> part) const {
  if (bytes_.empty() || part.data() < bytes_.data() ||
      part.data() + part.size() > bytes_.data() + bytes_.size())
    return;
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<uintptr_t>(part.data()) + page - 1) / page * page;
  const auto end = reinterpret_cast<uintptr_t>(part.data() + part.size()) / page * page;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

}  // namespace volley
