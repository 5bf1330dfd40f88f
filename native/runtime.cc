/*
 * The little of the C++ library that the addon needs, for the binaries in the package: they are linked without libstdc++, so that one of
 * them serves every Linux of its libc. Nothing here is compiled where node-gyp builds on the user's own machine.
 *
 * Without exceptions there is nothing to throw: a lack of memory ends the process, as it does in Node itself.
 */

#include <cstdlib>
#include <memory>
#include <new>
#include <string>

extern "C" {
// Of glibc 2.32. Atomic operations are right in every process.
char __libc_single_threaded = 0;
void __cxa_pure_virtual() { std::abort(); }
}

void* operator new(std::size_t size) {
  void* memory = std::malloc(size > 0 ? size : 1);
  if (memory == nullptr) std::abort();
  return memory;
}
void* operator new[](std::size_t size) { return operator new(size); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return std::malloc(size > 0 ? size : 1); }
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept { return std::malloc(size > 0 ? size : 1); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }

namespace std {

void __throw_bad_alloc() { abort(); }
void __throw_bad_array_new_length() { abort(); }
void __throw_bad_function_call() { abort(); }
void __throw_length_error(const char*) { abort(); }
void __throw_logic_error(const char*) { abort(); }
void __throw_out_of_range(const char*) { abort(); }
void __throw_out_of_range_fmt(const char*, ...) { abort(); }
void __throw_system_error(int) { abort(); }

template class basic_string<char>;

// Of <memory>, where there is no RTTI.
bool _Sp_make_shared_tag::_S_eq(const type_info&) noexcept { return false; }

}  // namespace std
